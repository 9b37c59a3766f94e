// SPDX-License-Identifier: BSD-3-Clause
#include "agent/kernel_nbd/netlink.h"

#include <array>
#include <cerrno>

#include <fcntl.h>
#include <linux/nbd-netlink.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>
#include <spawn.h>
#include <sys/wait.h>

#include "agent/kernel_nbd/handshake.h"
#include "zodb/error.h"

namespace zbig {
namespace {

struct MessageFree {
  void operator()(nl_msg* message) const { nlmsg_free(message); }
};
using Message = std::unique_ptr<nl_msg, MessageFree>;

struct CallbacksFree {
  void operator()(nl_cb* callbacks) const { nl_cb_put(callbacks); }
};
using Callbacks = std::unique_ptr<nl_cb, CallbacksFree>;

std::unique_ptr<nl_sock, NlSocketFree> open_genl() {
  std::unique_ptr<nl_sock, NlSocketFree> socket(nl_socket_alloc());
  if (!socket) throw std::bad_alloc();
  if (const int error = genl_connect(socket.get()); error < 0) {
    throw Unsupported(std::string("open a generic netlink socket: ") + nl_geterror(error));
  }
  ::fcntl(nl_socket_get_fd(socket.get()), F_SETFD, FD_CLOEXEC);
  return socket;
}

// Loads the module so that it does not look for partitions in what users store.
void load_module() {
  std::array<const char*, 4> argv = {"modprobe", "nbd", "max_part=0", nullptr};
  std::array<const char*, 2> environment = {"PATH=/usr/sbin:/sbin:/usr/bin:/bin", nullptr};
  for (const char* path : {"/usr/sbin/modprobe", "/sbin/modprobe"}) {
    pid_t child = 0;
    if (::posix_spawn(&child, path, nullptr, nullptr, const_cast<char**>(argv.data()),
                      const_cast<char**>(environment.data())) != 0) {
      continue;
    }
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return;
  }
}

int resolve_family(nl_sock* socket) {
  int family = genl_ctrl_resolve(socket, NBD_GENL_FAMILY_NAME);
  if (family < 0) {
    load_module();
    family = genl_ctrl_resolve(socket, NBD_GENL_FAMILY_NAME);
  }
  if (family < 0) {
    throw Unsupported("this kernel has no nbd (module 'nbd')");
  }
  return family;
}

Message new_message(int family, std::uint8_t command) {
  Message message(nlmsg_alloc());
  if (!message || genlmsg_put(message.get(), NL_AUTO_PORT, NL_AUTO_SEQ, family, 0, NLM_F_ACK,
                              command, NBD_GENL_VERSION) == nullptr) {
    throw std::bad_alloc();
  }
  return message;
}

// nla_put_* fail only when the message has no room, and a page has room for far more than we say.
void check(int result) { invariant(result >= 0, "a netlink message has room for its attributes"); }

void put_sockets(nl_msg* message, std::span<const int> sockets) {
  if (sockets.empty()) return;
  nlattr* list = nla_nest_start(message, NBD_ATTR_SOCKETS);
  for (const int fd : sockets) {
    nlattr* item = nla_nest_start(message, NBD_SOCK_ITEM);
    check(nla_put_u32(message, NBD_SOCK_FD, static_cast<std::uint32_t>(fd)));
    nla_nest_end(message, item);
  }
  nla_nest_end(message, list);
}

struct Answer {
  bool done = false;
  int error = 0;  // errno
  std::optional<std::uint32_t> index;
};

std::optional<std::uint32_t> index_of(nl_msg* message) {
  std::array<nlattr*, NBD_ATTR_MAX + 1> attributes = {};
  if (genlmsg_parse(nlmsg_hdr(message), 0, attributes.data(), NBD_ATTR_MAX, nullptr) < 0 ||
      attributes[NBD_ATTR_INDEX] == nullptr ||
      nla_len(attributes[NBD_ATTR_INDEX]) < static_cast<int>(sizeof(std::uint32_t))) {
    return std::nullopt;
  }
  return nla_get_u32(attributes[NBD_ATTR_INDEX]);
}

Answer send(nl_sock* socket, const Message& message) {
  Answer answer;
  const Callbacks callbacks(nl_cb_alloc(NL_CB_DEFAULT));
  if (!callbacks) throw std::bad_alloc();
  nl_cb_set(
      callbacks.get(), NL_CB_VALID, NL_CB_CUSTOM,
      [](nl_msg* reply, void* data) -> int {
        static_cast<Answer*>(data)->index = index_of(reply);
        return NL_OK;
      },
      &answer);
  nl_cb_set(
      callbacks.get(), NL_CB_ACK, NL_CB_CUSTOM,
      [](nl_msg*, void* data) -> int {
        static_cast<Answer*>(data)->done = true;
        return NL_STOP;
      },
      &answer);
  nl_cb_err(
      callbacks.get(), NL_CB_CUSTOM,
      [](sockaddr_nl*, nlmsgerr* error, void* data) -> int {
        *static_cast<Answer*>(data) = {true, -error->error, std::nullopt};
        return NL_STOP;
      },
      &answer);
  if (const int error = nl_send_auto(socket, message.get()); error < 0) {
    throw Failed(std::string("netlink: ") + nl_geterror(error));
  }
  // The kernel answers before the send returns, so this reads what is there.
  while (!answer.done) {
    const int error = nl_recvmsgs(socket, callbacks.get());
    // It fails as well with what the kernel answered, if that is an error.
    if (error < 0 && !answer.done) {
      throw Failed(std::string("netlink: ") + nl_geterror(error));
    }
  }
  return answer;
}

[[noreturn]] void throw_refusal(const std::string& sentence, int error) {
  switch (error) {
    case EBUSY:
      throw Busy(sentence + ": the device is in use");
    case EPERM:
      throw Failed(sentence + ": not permitted; it needs CAP_SYS_ADMIN outside of a container");
    case EINVAL:
      throw Invalid(sentence + ": the kernel refuses it (dmesg says why)");
    default:
      throw_errno(sentence, error);
  }
}

std::string name_of(std::uint32_t index) { return "/dev/nbd" + std::to_string(index); }

}  // namespace

void NlSocketFree::operator()(nl_sock* socket) const { nl_socket_free(socket); }

NbdNetlink::NbdNetlink() : socket_(open_genl()), family_(resolve_family(socket_.get())) {}

std::uint32_t NbdNetlink::connect(const NbdConnect& what) {
  const Message message = new_message(family_, NBD_CMD_CONNECT);
  nl_msg* to = message.get();
  if (what.index) check(nla_put_u32(to, NBD_ATTR_INDEX, *what.index));
  check(nla_put_u64(to, NBD_ATTR_SIZE_BYTES, what.size));
  check(nla_put_u64(to, NBD_ATTR_BLOCK_SIZE_BYTES, 4096));
  // Said even when 0: an index remembers the timeout of whoever had it before.
  check(
      nla_put_u64(to, NBD_ATTR_TIMEOUT, static_cast<std::uint64_t>(what.request_timeout.count())));
  check(nla_put_u64(to, NBD_ATTR_DEAD_CONN_TIMEOUT,
                    static_cast<std::uint64_t>(what.dead_connection_timeout.count())));
  check(nla_put_u64(to, NBD_ATTR_SERVER_FLAGS, what.server_flags));
  check(nla_put_string(to, NBD_ATTR_BACKEND_IDENTIFIER, what.identifier.c_str()));
  put_sockets(to, what.sockets);
  const Answer answer = send(socket_.get(), message);
  const std::string sentence =
      "attach " + (what.index ? name_of(*what.index) : std::string("a free /dev/nbdX"));
  if (answer.error != 0) throw_refusal(sentence, answer.error);
  if (!answer.index) throw Failed(sentence + ": the kernel does not say which it took");
  return *answer.index;
}

void NbdNetlink::reconfigure(std::uint32_t index, const std::string& identifier,
                             std::optional<std::uint64_t> size, std::span<const int> sockets) {
  const Message message = new_message(family_, NBD_CMD_RECONFIGURE);
  nl_msg* to = message.get();
  check(nla_put_u32(to, NBD_ATTR_INDEX, index));
  check(nla_put_string(to, NBD_ATTR_BACKEND_IDENTIFIER, identifier.c_str()));
  if (size) check(nla_put_u64(to, NBD_ATTR_SIZE_BYTES, *size));
  put_sockets(to, sockets);
  const Answer answer = send(socket_.get(), message);
  if (answer.error != 0) throw_refusal("reconfigure " + name_of(index), answer.error);
}

void NbdNetlink::disconnect(std::uint32_t index) {
  const Message message = new_message(family_, NBD_CMD_DISCONNECT);
  check(nla_put_u32(message.get(), NBD_ATTR_INDEX, index));
  const Answer answer = send(socket_.get(), message);
  if (answer.error != 0) throw_refusal("disconnect " + name_of(index), answer.error);
}

LinkMonitor::LinkMonitor() : socket_(open_genl()) {
  resolve_family(socket_.get());
  const int group =
      genl_ctrl_resolve_grp(socket_.get(), NBD_GENL_FAMILY_NAME, NBD_GENL_MCAST_GROUP_NAME);
  if (group < 0) throw Unsupported("the kernel's nbd does not tell of dead connections");
  nl_socket_disable_seq_check(socket_.get());
  if (const int error = nl_socket_add_membership(socket_.get(), group); error < 0) {
    throw Failed(std::string("listen to the kernel's nbd: ") + nl_geterror(error));
  }
  nl_socket_set_nonblocking(socket_.get());
}

int LinkMonitor::fd() const { return nl_socket_get_fd(socket_.get()); }

std::optional<std::uint32_t> LinkMonitor::read() {
  for (;;) {
    std::optional<std::uint32_t> dead;
    const Callbacks callbacks(nl_cb_alloc(NL_CB_DEFAULT));
    if (!callbacks) throw std::bad_alloc();
    nl_cb_set(
        callbacks.get(), NL_CB_SEQ_CHECK, NL_CB_CUSTOM, [](nl_msg*, void*) -> int { return NL_OK; },
        nullptr);
    nl_cb_set(
        callbacks.get(), NL_CB_VALID, NL_CB_CUSTOM,
        [](nl_msg* message, void* data) -> int {
          const auto* header = static_cast<const genlmsghdr*>(nlmsg_data(nlmsg_hdr(message)));
          if (header->cmd == NBD_CMD_LINK_DEAD) {
            *static_cast<std::optional<std::uint32_t>*>(data) = index_of(message);
          }
          return NL_OK;
        },
        &dead);
    const int error = nl_recvmsgs(socket_.get(), callbacks.get());
    if (dead) return dead;
    if (error == -NLE_AGAIN) return std::nullopt;
    if (error == -NLE_NOMEM) return kAll;  // ENOBUFS
    if (error < 0) throw Failed(std::string("listen to the kernel's nbd: ") + nl_geterror(error));
  }
}

}  // namespace zbig

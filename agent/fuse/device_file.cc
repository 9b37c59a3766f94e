// SPDX-License-Identifier: BSD-3-Clause
#define FUSE_USE_VERSION 312
#include "agent/fuse/device_file.h"

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <ctime>

#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/falloc.h>
#include <poll.h>
#include <sys/statvfs.h>

#include "agent/fuse/message.h"
#include "zodb/error.h"

namespace zbig::fuse {
namespace {

constexpr std::size_t kPage = 4096;
// What one FUSE message carries at most, unless the administrator allowed the kernel more
// (fs.fuse.max_pages_limit) and libfuse knows of it.
constexpr std::size_t kMaxMessage = 1u << 20;
// What one read request asks for at most. A read-ahead comes as several then, which are answered
// side by side, and a program that touched one page waits for the request with that page alone:
// with a read-ahead of 512 KiB that is a tenth faster than requests of 1 MiB for a program that
// reads everything, and twice as fast for one that touches here and there.
constexpr std::size_t kMaxRead = 128u << 10;
// Requests taken from the kernel and not answered: bounds our memory at kMaxOpen * kMaxMessage. The
// rest waits in the kernel.
constexpr std::uint64_t kMaxOpen = 96;
// Of the kernel's background requests: read-ahead and write-back.
constexpr unsigned kMaxBackground = 64;
constexpr double kForever = 86400;

// The last thing that libfuse had to say.
std::string& complaint() {
  static std::string text;
  return text;
}

void remember_complaint(fuse_log_level, const char* format, va_list arguments) {
  char line[512];
  std::vsnprintf(line, sizeof line, format, arguments);
  complaint() = line;
  while (!complaint().empty() && complaint().back() == '\n') complaint().pop_back();
}

// The numbers that a program which reads and writes a block device understands.
int for_kernel(int error) {
  switch (error) {
    case 0:
    case ENOSPC:
    case EPERM:
    case EOPNOTSUPP:
      return error;
    default:
      return EIO;
  }
}

}  // namespace

// What libfuse calls. No exception may pass through it.
struct DeviceFile::Operations {
  static DeviceFile& self(fuse_req_t request) {
    return *static_cast<DeviceFile*>(fuse_req_userdata(request));
  }
  template <class Body>
  static void guarded(fuse_req_t request, Body body) noexcept {
    try {
      body(self(request));
    } catch (const std::exception& error) {
      say(error.what());
      fuse_reply_err(request, EIO);
    }
  }

  static void init(void* user, fuse_conn_info* connection) {
    static_cast<DeviceFile*>(user)->negotiate(*connection);
  }
  static void getattr(fuse_req_t request, fuse_ino_t, fuse_file_info*) {
    const struct stat attributes = self(request).attributes();
    fuse_reply_attr(request, &attributes, kForever);
  }
  static void setattr(fuse_req_t request, fuse_ino_t, struct stat* wanted, int which,
                      fuse_file_info* file) {
    DeviceFile& device = self(request);
    if ((which & FUSE_SET_ATTR_SIZE) != 0) {
      // D1. Without a file handle, 0 is open(O_TRUNC).
      const bool as_is = static_cast<std::uint64_t>(wanted->st_size) == device.size_;
      const bool open_truncates = wanted->st_size == 0 && file == nullptr;
      if (!as_is && !open_truncates) {
        fuse_reply_err(request, EINVAL);
        return;
      }
    }
    if ((which & FUSE_SET_ATTR_MODE) != 0) device.settings_.mode = wanted->st_mode & 07777;
    if ((which & FUSE_SET_ATTR_UID) != 0) device.uid_ = wanted->st_uid;
    if ((which & FUSE_SET_ATTR_GID) != 0) device.gid_ = wanted->st_gid;
    // Times are the kernel's own business with a write-back cache.
    getattr(request, FUSE_ROOT_ID, nullptr);
  }
  static void open(fuse_req_t request, fuse_ino_t, fuse_file_info* file) {
    // From now on the kernel opens without asking, and keeps its cache when it does.
    if (self(request).open_needs_no_asking_) {
      fuse_reply_err(request, ENOSYS);
      return;
    }
    file->keep_cache = 1;
    fuse_reply_open(request, file);
  }
  static void read(fuse_req_t request, fuse_ino_t, std::size_t length, off_t offset,
                   fuse_file_info*) {
    guarded(request, [&](DeviceFile& device) {
      device.read(request, static_cast<std::uint64_t>(offset), length);
    });
  }
  static void write(fuse_req_t request, fuse_ino_t, const char* data, std::size_t length,
                    off_t offset, fuse_file_info* file) {
    guarded(request, [&](DeviceFile& device) {
      device.write(request, static_cast<std::uint64_t>(offset), data, length, file->writepage != 0);
    });
  }
  static void fsync(fuse_req_t request, fuse_ino_t, int, fuse_file_info*) {
    guarded(request, [&](DeviceFile& device) { device.flush(request); });
  }
  static void fallocate(fuse_req_t request, fuse_ino_t, int mode, off_t offset, off_t length,
                        fuse_file_info*) {
    guarded(request, [&](DeviceFile& device) {
      device.allocate(request, mode, static_cast<std::uint64_t>(offset),
                      static_cast<std::uint64_t>(length));
    });
  }
  static void statfs(fuse_req_t request, fuse_ino_t) {
    struct statvfs numbers = {};
    numbers.f_bsize = numbers.f_frsize = kPage;
    numbers.f_blocks = (self(request).size_ + kPage - 1) / kPage;
    numbers.f_namemax = 255;
    fuse_reply_statfs(request, &numbers);
  }

  static fuse_lowlevel_ops table() {
    fuse_lowlevel_ops ops = {};
    ops.init = init;
    ops.getattr = getattr;
    ops.setattr = setattr;
    ops.open = open;
    ops.read = read;
    ops.write = write;
    ops.fsync = fsync;
    ops.fallocate = fallocate;
    ops.statfs = statfs;
    return ops;
  }
};

void DeviceFile::Closer::operator()(fuse_session* session) const { fuse_session_destroy(session); }

DeviceFile::DeviceFile(EventLoop& loop, NbdClient& server, Settings settings,
                       const ExportInfo& info, std::function<void()> on_overrun)
    : loop_(loop),
      server_(server),
      settings_(std::move(settings)),
      size_(info.size),
      max_transfer_(std::min<std::size_t>(info.max_transfer, kMaxMessage) / kPage * kPage),
      max_read_(std::min(max_transfer_, kMaxRead)),
      can_flush_(info.can_flush),
      can_zero_(info.can_zero),
      on_overrun_(std::move(on_overrun)),
      uid_(geteuid()),
      gid_(getegid()) {
  if (max_transfer_ == 0) {
    throw Unsupported("the server takes at most " + std::to_string(info.max_transfer) +
                      " bytes a request");
  }
  clock_gettime(CLOCK_REALTIME, &created_);
}

DeviceFile::~DeviceFile() { unmount(); }

void DeviceFile::mount() {
  fuse_set_log_func(remember_complaint);
  std::string options = "fsname=zbig,subtype=zbig,default_permissions";
  if (settings_.allow_other) options += ",allow_other";
  if (settings_.read_only) options += ",ro";
  options += ",max_read=" + std::to_string(max_read_);
  std::string words[] = {"zbig-fuse", "-o", options};
  char* argv[] = {words[0].data(), words[1].data(), words[2].data()};
  fuse_args arguments = {.argc = 3, .argv = argv, .allocated = 0};
  const fuse_lowlevel_ops operations = Operations::table();
  session_.reset(fuse_session_new(&arguments, &operations, sizeof operations, this));
  fuse_opt_free_args(&arguments);
  if (!session_ || fuse_session_mount(session_.get(), settings_.path.c_str()) != 0) {
    session_.reset();
    throw Failed("mount at " + settings_.path + ": " + complaint());
  }
  const int flags = fcntl(kernel_fd(), F_GETFL);
  if (fcntl(kernel_fd(), F_SETFL, flags | O_NONBLOCK) < 0) throw_errno("/dev/fuse", errno);
  loop_.add(*this);
}

void DeviceFile::unmount() {
  if (!session_) return;
  loop_.remove(*this);
  fuse_session_unmount(session_.get());
  session_.reset();
}

bool DeviceFile::alive() const { return session_ && fuse_session_exited(session_.get()) == 0; }

const std::string& DeviceFile::last_complaint() { return complaint(); }

int DeviceFile::kernel_fd() const { return fuse_session_fd(session_.get()); }

short DeviceFile::events() const {
  return open_requests_ < kMaxOpen ? static_cast<short>(POLLIN) : static_cast<short>(0);
}

void DeviceFile::on_ready(short) {
  // A few at once, but the server's answers must have their turn too.
  for (int i = 0; i < 16 && alive() && open_requests_ < kMaxOpen; ++i) {
    if (!message_) message_ = message_buffers_.take();
    fuse_buf buffer = {};
    buffer.mem = message_.release();
    const int received = fuse_session_receive_buf(session_.get(), &buffer);
    message_.reset(buffer.mem);  // libfuse allocates it if there is none
    if (received <= 0) return;
    fuse_session_process_buf(session_.get(), &buffer);
  }
}

void DeviceFile::negotiate(fuse_conn_info& connection) {
  // Data stay in our buffers: no pipes. The kernel drops pages only when told to (invalidate), not
  // because times or sizes look different. O_TRUNC comes to setattr, which ignores it (D1).
  connection.want &=
      ~static_cast<unsigned>(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE |
                             FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_ATOMIC_O_TRUNC);
  unsigned wanted = FUSE_CAP_EXPLICIT_INVAL_DATA | FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO;
  // A read-only mount cannot be truncated (D1), and needs no such cache.
  if (!settings_.read_only) wanted |= FUSE_CAP_WRITEBACK_CACHE;
  connection.want |= connection.capable & wanted;
  // The same as the mount option, or libfuse refuses.
  connection.max_read = static_cast<unsigned>(max_read_);
  connection.max_write = static_cast<unsigned>(max_transfer_);
  connection.max_background = kMaxBackground;
  connection.congestion_threshold = kMaxBackground * 3 / 4;
  open_needs_no_asking_ = (connection.capable & FUSE_CAP_NO_OPEN_SUPPORT) != 0;
}

struct stat DeviceFile::attributes() const {
  struct stat attributes = {};
  attributes.st_ino = FUSE_ROOT_ID;
  attributes.st_mode = S_IFREG | settings_.mode;
  attributes.st_nlink = 1;
  attributes.st_uid = uid_;
  attributes.st_gid = gid_;
  attributes.st_size = static_cast<off_t>(size_);
  attributes.st_blocks = static_cast<blkcnt_t>((size_ + 511) / 512);
  attributes.st_blksize = static_cast<blksize_t>(max_transfer_);
  attributes.st_atim = attributes.st_mtim = attributes.st_ctim = created_;
  return attributes;
}

void DeviceFile::send(NbdRequest request, Done done) {
  ++open_requests_;
  request.done = [this, done = std::move(done)](int error) {
    --open_requests_;
    if (error != 0) ++failed_requests_;
    done(for_kernel(error));
  };
  server_.submit(std::make_unique<NbdRequest>(std::move(request)));
}

void DeviceFile::read(fuse_req* request, std::uint64_t offset, std::size_t length) {
  if (offset >= size_) {
    fuse_reply_buf(request, nullptr, 0);
    return;
  }
  length = static_cast<std::size_t>(std::min<std::uint64_t>(length, size_ - offset));
  BufferPool::Buffer buffer = read_buffers_.take();
  // NOLINTNEXTLINE(cppcoreguidelines-no-malloc,cppcoreguidelines-owning-memory)
  if (!buffer) buffer.reset(std::malloc(max_read_));
  if (!buffer || length > max_read_) {
    fuse_reply_err(request, buffer ? EINVAL : ENOMEM);
    return;
  }
  auto* data = static_cast<std::byte*>(buffer.get());
  // std::function copies what it holds, so the buffer is handed over as a shared pointer.
  send({.kind = NbdRequest::Kind::kRead, .data = data, .offset = offset, .length = length},
       [this, request, length,
        held = std::make_shared<BufferPool::Buffer>(std::move(buffer))](int error) {
         if (error == 0) {
           fuse_reply_buf(request, static_cast<const char*>(held->get()), length);
         } else {
           fuse_reply_err(request, error);
         }
         read_buffers_.give_back(std::move(*held));
       });
}

void DeviceFile::write(fuse_req* request, std::uint64_t offset, const char* data,
                       std::size_t length, bool from_page_cache) {
  const std::uint64_t room = offset < size_ ? size_ - offset : 0;
  const bool overrun = length > room;
  const auto fits = static_cast<std::size_t>(std::min<std::uint64_t>(length, room));
  if (fits == 0) {
    fuse_reply_err(request, ENOSPC);
    on_overrun_();
    return;
  }
  // The data stay in the message, and the message stays with us until they are written.
  auto* start = reinterpret_cast<std::byte*>(const_cast<char*>(data));
  send({.kind = NbdRequest::Kind::kWrite, .data = start, .offset = offset, .length = fits},
       [this, request, fits, overrun, from_page_cache,
        held = std::make_shared<BufferPool::Buffer>(std::move(message_))](int error) {
         if (overrun && from_page_cache && error == 0) error = ENOSPC;  // D2
         if (error == 0) {
           fuse_reply_write(request, fits);
         } else {
           fuse_reply_err(request, error);
         }
         if (overrun) on_overrun_();
         message_buffers_.give_back(std::move(*held));
       });
}

void DeviceFile::flush(fuse_req* request) {
  if (!can_flush_ || settings_.read_only) {
    fuse_reply_err(request, 0);
    return;
  }
  send({.kind = NbdRequest::Kind::kFlush},
       [request](int error) { fuse_reply_err(request, error); });
}

void DeviceFile::allocate(fuse_req* request, int mode, std::uint64_t offset, std::uint64_t length) {
  const bool punch = (mode & FALLOC_FL_PUNCH_HOLE) != 0;
  const bool zeroes = (mode & FALLOC_FL_ZERO_RANGE) != 0;
  if ((mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0) {
    fuse_reply_err(request, EOPNOTSUPP);
    return;
  }
  const bool fits = offset <= size_ && length <= size_ - offset;
  if (!fits && (mode & FALLOC_FL_KEEP_SIZE) == 0) {
    fuse_reply_err(request, ENOSPC);
    return;
  }
  if (!fits) length = offset < size_ ? size_ - offset : 0;
  if (!(punch || zeroes) || length == 0) {
    fuse_reply_err(request, 0);  // every byte of a device has its place already
    return;
  }
  if (!can_zero_) {
    fuse_reply_err(request, EOPNOTSUPP);
    return;
  }
  zero(offset, length, zeroes, [request](int error) { fuse_reply_err(request, error); });
}

void DeviceFile::zero(std::uint64_t offset, std::uint64_t length, bool keep_allocated, Done done) {
  const std::uint64_t now = std::min(length, NbdRequest::kMaxZero);
  send({.kind = NbdRequest::Kind::kZero,
        .offset = offset,
        .length = now,
        .keep_allocated = keep_allocated},
       [this, offset, length, now, keep_allocated, done = std::move(done)](int error) {
         if (error != 0 || now == length) return done(error);
         zero(offset + now, length - now, keep_allocated, done);
       });
}

}  // namespace zbig::fuse

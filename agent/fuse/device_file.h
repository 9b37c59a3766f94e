// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include <sys/stat.h>

#include "agent/fuse/buffer_pool.h"
#include "agent/fuse/event_loop.h"
#include "agent/fuse/nbd_client.h"

// DeviceFile: the FUSE file system that consists of one regular file, the device.
//
// It is mounted over a file, so its root is that file, and the path that the user chose is the
// device itself. It behaves as a block device does: a size that nobody changes by writing or
// truncating, a page cache that only explicit invalidation drops, dirty pages that are written back
// later.
//
// The write-back cache brings one trap. With it the kernel alone knows the size of a file, ignores
// what getattr says, and starts the root of a mount with a size of 0 [Linux 6.1 to 6.18,
// fuse_change_attributes]. Only a truncation makes it take the size that we reply. Hence:
//
// D1  setattr of a size never changes anything here; it replies with the device's size, and so the
//     kernel learns it. Whoever mounts or resizes the device truncates it to the new size
//     (kernel_file.h). open(O_TRUNC) changes nothing, as on a block device.
// D2  A write past the end extends the file in the kernel's cache, without asking. When it is
//     written back, what fits is stored, the writer's fsync gets ENOSPC, and on_overrun is called
//     to put the size right.
// D3  No SEEK_HOLE and no SEEK_DATA: the kernel asks for holes without writing its dirty pages
//     first, so a copying program would take a page that is dirty there for a hole here.

struct fuse_session;
struct fuse_req;
struct fuse_conn_info;

namespace zbig::fuse {

class DeviceFile : public EventSource {
 public:
  struct Settings {
    std::string path;
    bool read_only = false;
    bool allow_other = false;
    mode_t mode = 0600;
  };

  DeviceFile(EventLoop& loop, NbdClient& server, Settings settings, const ExportInfo& info,
             std::function<void()> on_overrun);
  ~DeviceFile() override;

  // Throws Failed.
  void mount();
  // False once the file system is unmounted.
  bool alive() const;
  // What libfuse said last, where the mount did not live long.
  static const std::string& last_complaint();
  // Lets go of the kernel's device: what waits for an answer gets an error, as if the process had
  // died. Takes the mount away if it is still there, whoever uses it.
  void unmount();

  int kernel_fd() const;
  std::uint64_t size() const { return size_; }
  void set_size(std::uint64_t size) { size_ = size; }
  std::uint64_t open_requests() const { return open_requests_; }
  std::uint64_t failed_requests() const { return failed_requests_; }

  int fd() const override { return kernel_fd(); }
  short events() const override;
  void on_ready(short revents) override;

 private:
  struct Operations;
  struct Closer {
    void operator()(fuse_session* session) const;
  };
  using Done = std::function<void(int)>;

  void negotiate(fuse_conn_info& connection);
  struct stat attributes() const;
  void read(fuse_req* request, std::uint64_t offset, std::size_t length);
  void write(fuse_req* request, std::uint64_t offset, const char* data, std::size_t length,
             bool from_page_cache);
  void flush(fuse_req* request);
  void allocate(fuse_req* request, int mode, std::uint64_t offset, std::uint64_t length);
  void zero(std::uint64_t offset, std::uint64_t length, bool keep_allocated, Done done);
  void send(NbdRequest request, Done done);

  EventLoop& loop_;
  NbdClient& server_;
  Settings settings_;
  std::uint64_t size_;
  std::size_t max_transfer_;
  std::size_t max_read_;
  bool can_flush_;
  bool can_zero_;
  std::function<void()> on_overrun_;
  uid_t uid_;
  gid_t gid_;
  timespec created_ = {};
  bool open_needs_no_asking_ = false;
  std::uint64_t open_requests_ = 0;
  std::uint64_t failed_requests_ = 0;
  BufferPool read_buffers_;
  BufferPool message_buffers_;
  BufferPool::Buffer message_;  // being processed; a write takes it away
  std::unique_ptr<fuse_session, Closer> session_;
};

}  // namespace zbig::fuse

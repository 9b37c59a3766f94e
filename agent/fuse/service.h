// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "agent/fd.h"
#include "agent/fuse/control_listener.h"
#include "agent/fuse/control_session.h"
#include "agent/fuse/device_file.h"
#include "agent/fuse/event_loop.h"
#include "agent/fuse/nbd_client.h"
#include "agent/fuse/options.h"
#include "agent/fuse/worker.h"

// Service: zbig-fuse from connecting to having left.
//
// One thread, the loop, answers the kernel: requests come from /dev/fuse, go to the server, and
// their answers go back. It never blocks on anything but poll(2). Everything that could (a sync, an
// invalidation, an unmounting, a control client) is a worker process.
//
//      programs -- kernel page cache -- /dev/fuse -- [ loop ] -- NBD -- server
//                         ^                             | line
//                         +---- invalidate, fsync -- [ workers ] -- control socket -- agent
//
// The mount ends by an unmount (fusermount3 -u, `quit`), by SIGTERM or SIGINT (what is dirty is
// written, then the mount is taken away, even from under programs that use it), or by a second such
// signal or `quit` with `force`, which wait for nothing.

namespace zbig::fuse {

class Service {
 public:
  explicit Service(Options options);
  ~Service();

  // Serves until the end; `ready` is called when programs can use the device. Throws what kept it
  // from coming up.
  void run(const std::function<void()>& ready);

 private:
  class Signals;

  void start_up();
  void answer(const Json& question, const Workers::Reply& reply);
  void resize(std::uint64_t size, const Workers::Reply& reply);
  void restore_size();
  void serve(Fd client);
  void stop();
  Json status() const;
  void take_down();

  Options options_;
  EventLoop loop_;
  NbdClient server_;
  const Fd turns_;  // of workers
  DeviceFacts facts_;
  bool made_path_ = false;
  bool mounted_ = false;   // the kernel has the size
  bool stopping_ = false;  // a worker writes what is dirty and unmounts
  bool leaving_ = false;
  bool restoring_size_ = false;         // a worker is at it
  bool size_is_wrong_ = false;          // again, since it started
  std::optional<std::string> failure_;  // of start_up
  std::unique_ptr<Signals> signals_;
  std::unique_ptr<DeviceFile> device_;
  std::unique_ptr<ControlListener> control_;
  Workers workers_;
};

}  // namespace zbig::fuse

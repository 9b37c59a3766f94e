// SPDX-License-Identifier: BSD-3-Clause
//
// KernelDevice: an NBD export as a block device of the kernel, /dev/nbdX.
//
// Problem. Legacy programs map /dev/nbdX and are told nothing: their pages must follow the
// database, survive the death of the server, and never make a process wait for ever. The kernel's
// nbd driver can do all of that, but by default does none of it: it resets its defaults to those of
// whoever used the index before, lets anybody reconfigure or disconnect any index, fails I/O at
// once when its server dies, and blocks a disconnect behind a full socket. This class is the place
// where those choices are made, on purpose.
//
// What the user sees: attach gives a node and /dev/zbig/NAME, both there when it returns; programs
// may open, map, format and mount it; after a server's death they wait, and go on when the agent
// has connected the device to the next server; after a forced detach they get EIO or SIGBUS.
//
// Invariants
//   K1  From attach (or adopt) to the end of detach this object holds the device open. The kernel
//       does not give an index with an open descriptor to anybody else, so that everything which
//       is said to this index meets our device and no stranger's, although DISCONNECT checks
//       nothing.
//   K2  The identifier was read back from the device after it was opened, before anything else.
//   K3  Write-zeroes and trim are never offered to the kernel (but see DropMethod::kDiscard): a
//       hole punched to drop pages must never reach the server as a write of zeroes.
//   K4  The descriptors of the connections are kept. Shutting one down is the only way to free a
//       task of the kernel which sends to a server that has stopped reading, and which holds the
//       lock that DISCONNECT needs.
//   K5  Each call that may wait for the server (fsync, fallocate, close, DISCONNECT) is made on a
//       thread of this object, and its caller waits until a deadline only. That thread in turn
//       leaves fsync and fallocate, which nothing ends, to a child.
//
// Threads: any thread may call any method; sync and drop_pages run in the order of their calls.
// detach(kForce) goes past calls that are stuck, and ends them (they fail). After detach every
// call but the plain accessors throws Unavailable.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "agent/fd.h"
#include "agent/kernel_nbd/errand.h"
#include "agent/kernel_nbd/page_drop.h"
#include "agent/kernel_nbd/worker.h"
#include "bigfile/extent.h"

namespace zbig {

struct KernelAttachOptions {
  std::string socket_path;  // of the server
  std::string export_name;
  // Shown in /sys/block/nbdX/backend and asked for by each later change of the device:
  // device_identifier(). Two servers of which the second does not know what the first acknowledged
  // must differ in it: a device is never connected to a server without memory.
  std::string identifier;
  std::optional<std::uint32_t> index;  // of /dev/nbdX; the kernel chooses if there is none
  std::uint64_t size = 0;              // a multiple of 4096, at most the export's; 0: the export's
  bool read_only = false;              // also if the export is
  // With one connection the server may take as long as it likes for a request, and what a dead
  // server had not answered is sent to the next one within `resend` of its start. With more, Linux
  // ends a connection on which one request takes longer than request_timeout (30 s if that is 0),
  // and what a dead server had not answered is not sent again before that time is up.
  unsigned connections = 1;
  std::chrono::seconds request_timeout{0};
  std::chrono::milliseconds resend{2000};
  // How long I/O waits for reconnect() after the last connection has died before it fails.
  std::chrono::seconds dead_connection_timeout{300};
  unsigned request_kb = 2048;                       // largest request, and what is read ahead in
  unsigned read_ahead_kb = 2048;                    // a sequential read; a multiple of 4
  DropMethod drop_method = DropMethod::kPunchHole;  // probe_drop_methods()
  std::chrono::steady_clock::time_point deadline;
};

enum class DetachMode {
  kClean,  // writes everything back first; refused (Busy) while something is mounted
  kForce,  // gives writing back a third of the time, then cuts the connections
};

class KernelDevice {
 public:
  // Unsupported (this kernel has no nbd, or it would look for partitions inside of the volume),
  // NotFound (no such export), Busy (the index is in use), Unavailable (the server does not
  // answer), Invalid. On failure nothing is left behind.
  static std::unique_ptr<KernelDevice> attach(const KernelAttachOptions& options);

  // Takes over a device that an earlier agent attached; `options.index` and `options.identifier`
  // say which. The server need not live: reconnect() will do. It has no descriptors of the
  // connections (K4) until it has reconnected, so if the server is stuck, kill it before detach.
  // NotFound if that index is not attached, or is a stranger's (sysfs_find() finds the right one).
  static std::unique_ptr<KernelDevice> adopt(const KernelAttachOptions& options);

  // Does not detach: the device outlives the agent. Writing back what is dirty, and dropping
  // pages, goes on in processes of their own (errand.h), so that nobody has to wait for a server.
  ~KernelDevice();

  std::uint32_t index() const { return index_; }
  std::string node() const;  // /dev/nbdX
  std::uint64_t size() const;
  bool read_only() const { return read_only_; }
  // What the log should say once: settings of the module that cost something.
  const std::vector<std::string>& warnings() const { return warnings_; }

  // Everything stored or written before the call has reached the server and was flushed there.
  // Failed if the server refused a write: the kernel now takes those pages for clean, so that a
  // second call would succeed though they are lost. Unavailable at the deadline, or when `go_on`
  // says no: the writing goes on, and if it fails then the next call says so.
  void sync(Deadline deadline, const GoOn& go_on = {});

  // Drops the cached pages of `extents`, mapped ones in all processes included, so that the next
  // access asks the server, which must serve the new bytes by then. Extents are widened to pages
  // and cut at the size of the device. With kKeep, pages that are dirty stay, and are returned;
  // sync() and call again. With kDiscard what was stored in them is lost, nothing is returned.
  // Busy, with nothing dropped, while the device is mounted or else claimed.
  // Unavailable as of sync(): pages may be dropped still.
  ExtentList drop_pages(std::span<const Extent> extents, DirtyPages dirty, Deadline deadline,
                        const GoOn& go_on = {});

  // Of `extents`, pages that are old; see page_drop.h. Unavailable as of sync().
  ExtentList old_pages(std::span<const Extent> extents, Deadline deadline, const GoOn& go_on = {});

  // True while a mount, swap, LVM or another O_EXCL open claims the device.
  bool claimed(Deadline deadline);

  // After LinkMonitor told of a dead connection: connects the device to the server anew; requests
  // that wait are sent again. To be called again if told again. Unavailable, Invalid (the export
  // shrank or became read-only; the device is as before).
  void reconnect(const std::string& socket_path, Deadline deadline);

  // More bytes (a multiple of 4096), seen at once by those who have it mapped or open. Invalid if
  // the export has fewer: a server tells the size of an export once per connection, and refuses
  // what lies beyond, and the kernel takes new connections only in place of dead ones.
  void grow(std::uint64_t size, Deadline deadline);

  // Ends the device; after kForce with a deadline of 10 s it has ended whatever state server and
  // kernel were in. True if programs still hold it open or mapped: they get EIO or SIGBUS for what
  // is not cached, and the kernel frees the index when the last one lets go.
  bool detach(DetachMode mode, Deadline deadline);

 private:
  KernelDevice(const KernelAttachOptions& options, std::uint32_t index);
  static std::unique_ptr<KernelDevice> attach_once(const KernelAttachOptions& options);
  void open_and_identify(Deadline deadline);
  void check_queue() const;
  void tune(const KernelAttachOptions& options);
  std::vector<Fd> connect_sockets(const std::string& path, std::uint64_t at_least,
                                  Deadline deadline);
  void take_sockets(std::vector<Fd> sockets);
  void cut_connections();
  void disconnect(bool cut_first, Deadline deadline);
  std::shared_ptr<Fd> device() const;

  const std::uint32_t index_;
  const std::string identifier_;
  const std::string export_name_;
  const DropMethod drop_method_;
  bool read_only_ = false;
  unsigned connections_ = 0;
  std::vector<std::string> warnings_;

  mutable std::mutex mutex_;       // no call into the kernel that can wait is made under it
  std::string socket_path_;        // guarded by mutex_
  std::uint64_t size_ = 0;         // guarded by mutex_
  std::uint64_t export_size_ = 0;  // guarded by mutex_; the least that a live connection allows
  std::vector<Fd> sockets_;        // guarded by mutex_ (K4)
  Fd last_close_;                  // close_apart(); goes after device_
  std::shared_ptr<Fd> device_;     // guarded by mutex_ (K1); empty after detach

  // errno of an fsync whose caller had gone when it failed; the kernel tells each failure once.
  const std::shared_ptr<std::atomic<int>> lost_write_ = std::make_shared<std::atomic<int>>(0);

  std::stop_source leaving_;
  Worker data_;     // fsync, fallocate, close
  Worker control_;  // DISCONNECT and a new size, which must be able to overtake them
};

// "zbig:NAME:INSTANCE", NAME as valid_link_name() allows, INSTANCE of the same characters.
std::string device_identifier(const std::string& name, const std::string& instance);

}  // namespace zbig

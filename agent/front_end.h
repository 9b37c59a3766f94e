// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include <sys/types.h>

#include "agent/control_client.h"
#include "agent/device_record.h"
#include "agent/server.h"
#include "bigfile/extent.h"

// FrontEnd: how programs reach a device, and all that is special to that way.
//
// The server shows a device to NBD clients. A front end stands before it: a file (FuseMount), a
// block device (KernelNode), or nothing (for programs that speak NBD themselves). It holds copies
// of the device's bytes, pages of the kernel, that programs read and write without anybody being
// asked. What the database has to know of it is here: how to have those pages written to the
// server, how to have them dropped, and how to bring it up again whatever died.
//
// E1  A front end outlives the agent and the server. Programs that use it notice nothing of their
//     death but a delay; the next agent takes it over.
// E2  What waits for the server (sync, drop_pages, discard_pages) is given up as soon as the server
//     has ended: whoever asks holds the database's gate, and nobody else would start it again.
//
// Threads: one at a time.

namespace zbig {

// Pages whose bytes are not those of the server any more.
struct StalePages {
  bool whole = false;
  ExtentList extents;  // if not `whole`
};
// From the server's reply to a request that moves a view: `extents` or `whole`.
StalePages stale_pages_of(const Json& reply);
inline StalePages all_pages() { return {.whole = true, .extents = {}}; }

class FrontEnd {
 public:
  virtual ~FrontEnd() = default;

  // Before the first bring_up() of a device: puts into its record, which is saved then, what a
  // later agent needs to take over or to clean up.
  virtual void prepare(DeviceRecord& record) const = 0;
  // Takes over what an earlier agent left, or starts it; connects it to the server, which has the
  // device with `size` bytes. Returns when programs can use it. Throws Unavailable if this machine
  // cannot have it, Busy, Failed.
  virtual void bring_up(std::uint64_t size) = 0;
  // After bring_up(): puts into the record what it has found or chosen.
  virtual void note(DeviceRecord& record) const = 0;
  // Whether there is no need for bring_up().
  virtual bool well() = 0;
  // Descriptors that become readable when it is not well any more.
  virtual std::vector<int> watched() const = 0;

  // Processes that a program waits for when it uses the device, besides the server.
  virtual std::vector<pid_t> processes() const = 0;

  // Brings what programs wrote to mapped pages to the server, and has it flushed there. Throws
  // Unavailable, NoSpace, Failed.
  virtual void sync(std::chrono::milliseconds timeout) = 0;
  // True while something like a mounted file system claims the device, which would take amiss that
  // bytes change below it. Then no page can be dropped, and the view must not move.
  virtual bool claimed() = 0;
  // Drops pages from the kernel, from every program's mappings. Dirty ones among them are written
  // to the server first; afterwards no write that was made on an old page is on its way.
  virtual void drop_pages(const StalePages& pages, std::chrono::milliseconds timeout) = 0;
  // The same after an abort: what was written to them may be lost.
  virtual void discard_pages(const StalePages& pages, std::chrono::milliseconds timeout) = 0;

  // The server shows more bytes now: `record` says how many (least_size), and what else the volume
  // has become (facts). Programs see the size from now on, under the same name.
  virtual void grow(const DeviceRecord& record, std::chrono::milliseconds timeout) = 0;

  // Ends it. Throws Busy while a program uses it, and then it stays.
  virtual void end() = 0;
  // Ends it whoever uses it, dead or alive, brought up by this agent or another. What is dirty in
  // the kernel is lost.
  virtual void end_by_force() = 0;
  // After its end, when the device goes: removes the names that were made for it.
  virtual void remove_names(const DeviceRecord& record) const = 0;
};

// What is not the front end's own business: where things are.
struct FrontEndContext {
  const DeviceStore* store;
  const Server* server;
  const Server::Places* places;
};
std::unique_ptr<FrontEnd> make_front_end(const DeviceRecord& record,
                                         const FrontEndContext& context);

// Where programs find the device.
std::string node_of(const DeviceRecord& record, const Server& server);

}  // namespace zbig

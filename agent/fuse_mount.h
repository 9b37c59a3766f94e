// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "agent/control_client.h"
#include "agent/front_end.h"
#include "agent/service_process.h"

// FuseMount: a device as a file, by zbig-fuse (agent/fuse/, docs/fuse-control.md).
//
// zbig-fuse is a program of its own that outlives the agent. It finds the server again by itself
// when that was started anew, so it is left alone as long as it lives, and the next agent takes it
// over.
//
// F1  The agent never has the file itself open: closing it would write dirty pages, and hang while
//     the server is away. Whatever needs it open is asked of zbig-fuse.

namespace zbig {

class FuseMount : public FrontEnd {
 public:
  struct Places {
    std::string path;  // of the file
    std::string link;  // to it, or empty
    std::string lock;  // of the process, its log, and the socket that it listens at
    std::string log;
    std::string control;
    std::string program;  // zbig-fuse
  };
  FuseMount(Places places, const Server& server, std::string uri, bool read_only)
      : places_(std::move(places)),
        server_(server),
        uri_(std::move(uri)),
        read_only_(read_only),
        control_(places_.control, server_.stop_token()) {}

  // The path of the file that a mount asked for at `wanted` gets: in it, if it is a folder, named
  // `name`; otherwise itself. Throws Invalid for what is there and is no empty file, Busy for what
  // is mounted there.
  static std::string node_for(const std::string& wanted, const std::string& name);

  void prepare(DeviceRecord& record) const override;
  void bring_up(std::uint64_t size) override;
  bool well() override { return process_ && process_->alive(); }
  std::vector<int> watched() const override;
  std::vector<pid_t> processes() const override;
  void note(DeviceRecord&) const override {}
  bool claimed() override { return false; }
  void sync(std::chrono::milliseconds timeout) override;
  void drop_pages(const StalePages& pages, std::chrono::milliseconds timeout) override;
  void discard_pages(const StalePages& pages, std::chrono::milliseconds timeout) override;
  void grow(const DeviceRecord& record, std::chrono::milliseconds timeout) override;
  void end() override;
  void end_by_force() override;
  void remove_names(const DeviceRecord& record) const override;

 private:
  bool adopt();
  void start();
  void resize(std::uint64_t size, std::chrono::milliseconds timeout);
  void make_link() const;

  const Places places_;
  const Server& server_;
  const std::string uri_;
  const bool read_only_;
  const ControlClient control_;
  std::optional<ServiceProcess> process_;
  std::uint64_t told_size_ = 0;  // by this agent; of process_
};

}  // namespace zbig

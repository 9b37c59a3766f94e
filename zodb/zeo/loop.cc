// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/zeo/loop.h"

#include <thread>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

namespace zbig::zeo {

namespace asio = boost::asio;

struct Loop::Implementation {
  asio::io_context context{1};
  asio::executor_work_guard<asio::io_context::executor_type> work{context.get_executor()};
  std::jthread thread{[this] { context.run(); }};  // last: it uses all of the above
};

Loop::Loop() : implementation_(std::make_unique<Implementation>()) {}

Loop::~Loop() { stop(); }

void Loop::stop() {
  implementation_->context.stop();
  if (implementation_->thread.joinable()) implementation_->thread.join();
}

void Loop::post(std::function<void()> action) {
  asio::post(implementation_->context, std::move(action));
}

void Loop::after(std::chrono::milliseconds delay, std::function<void()> action) {
  auto timer = std::make_unique<asio::steady_timer>(implementation_->context, delay);
  auto& waiting = *timer;
  waiting.async_wait([timer = std::move(timer),
                      action = std::move(action)](const boost::system::error_code& error) {
    if (!error) action();
  });
}

asio::io_context& Loop::context() { return implementation_->context; }

}  // namespace zbig::zeo

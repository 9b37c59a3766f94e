// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/zeo/transaction_oids.h"

#include <utility>

namespace zbig::zeo {
namespace {

// A walk through one transaction, a call after the other, each sent when the last was answered.
class Walk : public std::enable_shared_from_this<Walk> {
 public:
  Walk(Channel& channel, Tid tid, std::function<void(std::optional<std::vector<Oid>>)> done)
      : channel_(channel), tid_(tid), done_(std::move(done)) {}

  void start() {
    call("iterator_start", {{Arg(tid_), Arg(tid_)}}, [this](Value answer) {
      const auto iterator = answer.integer();
      if (!iterator) return done_(std::nullopt);
      next_transaction(*iterator);
    });
  }

 private:
  template <class Then>
  void call(std::string_view method, std::vector<Arg> args, Then then) {
    channel_.call(method, args, [self = shared_from_this(), then](const Reply& reply) {
      if (!reply) return;
      if (reply->is_exception()) return self->done_(std::nullopt);
      then(reply->args());
    });
  }

  void next_transaction(std::int64_t iterator) {
    call("iterator_next", {Arg(iterator)}, [this, iterator](Value answer) {
      const auto parts = sequence(answer);
      if (!parts || parts->empty() || id_of((*parts)[0]) != tid_.value) return done_(std::nullopt);
      call("iterator_record_start", {Arg(iterator), Arg(tid_)}, [this, iterator](Value records) {
        const auto number = records.integer();
        if (!number) return done_(std::nullopt);
        iterator_ = iterator;
        next_record(*number);
      });
    });
  }

  void next_record(std::int64_t records) {
    call("iterator_record_next", {Arg(records)}, [this, records](Value answer) {
      if (answer.is_none()) {
        // Not earlier: the records come from the iterator's file.
        channel_.tell("iterator_gc", {{Arg(std::span<const std::int64_t>(&iterator_, 1))}});
        return done_(std::move(oids_));
      }
      const auto parts = sequence(answer);
      const auto oid = parts && !parts->empty() ? id_of((*parts)[0]) : std::nullopt;
      if (!oid) return done_(std::nullopt);
      oids_.push_back(Oid{*oid});
      next_record(records);
    });
  }

  Channel& channel_;  // calls us back, or nobody
  const Tid tid_;
  const std::function<void(std::optional<std::vector<Oid>>)> done_;
  std::int64_t iterator_ = 0;
  std::vector<Oid> oids_;
};

}  // namespace

void ask_oids_of(Channel& channel, Tid tid,
                 std::function<void(std::optional<std::vector<Oid>>)> done) {
  std::make_shared<Walk>(channel, tid, std::move(done))->start();
}

}  // namespace zbig::zeo

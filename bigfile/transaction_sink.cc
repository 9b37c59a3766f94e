// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/transaction_sink.h"

namespace zbig {

void TransactionSink::store(Oid oid, Tid base, std::span<const ByteView> parts) {
  if (!transaction_) transaction_ = storage_.begin(meta_);
  transaction_->store(oid, base, parts);
  ++objects_;
  if (base != kNoTid) stored_.insert(oid);  // nobody checks a new object
  for (const ByteView part : parts) bytes_ += part.size();
}

std::optional<Tid> TransactionSink::finish(const std::function<void(const std::string&)>& voted) {
  if (!transaction_) return std::nullopt;
  for (const Check& check : checks_) {
    if (!stored_.contains(check.oid)) transaction_->check_current(check.oid, check.serial);
  }
  transaction_->vote();
  if (voted) voted(transaction_->voted_mark());
  return transaction_->finish();
}

}  // namespace zbig

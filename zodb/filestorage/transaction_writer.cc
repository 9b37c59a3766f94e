// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/filestorage/transaction_writer.h"

#include <algorithm>

#include "zodb/error.h"

namespace zbig::fs {

TransactionWriter::TransactionWriter(DataFile& file, std::uint64_t position, Tid tid,
                                     const TransactionMeta& meta)
    : file_(file), written_(position), writing_back_(position) {
  auto& header = transaction_.header;
  header.tid = tid;
  header.status = TransactionHeader::kCheckpoint;
  header.user_size = static_cast<std::uint16_t>(meta.user.size());
  header.description_size = static_cast<std::uint16_t>(meta.description.size());
  header.extension_size = static_cast<std::uint16_t>(meta.extension.size());
  transaction_.position = position;
  put(header.encode());
  append(buffer_, meta.user);
  append(buffer_, meta.description);
  put(meta.extension);
}

void TransactionWriter::add(Oid oid, std::uint64_t previous, std::span<const ByteView> parts) {
  std::uint64_t size = 0;
  for (const auto& part : parts) size += part.size();
  invariant(size != 0, "a record holds data");

  const auto at = written_ + buffer_.size();
  if (size > kMaxFileSize || at > kMaxFileSize - size - RecordHeader::kSize - 8) {
    throw NoSpace(file_.path() + " would grow past 256 TiB, where its index ends");
  }
  transaction_.records.push_back({oid, at});
  put(RecordHeader{oid, transaction_.header.tid, previous, transaction_.position, 0, size}
          .encode());
  if (size >= kLarge) return flush(parts);
  for (const auto& part : parts) put(part);
  if (buffer_.size() >= kBufferSize) flush({});
}

void TransactionWriter::flush(std::span<const ByteView> parts) {
  std::vector<iovec> list;
  const auto add = [&](ByteView bytes) {
    list.push_back({const_cast<std::byte*>(bytes.data()), bytes.size()});
  };
  add(buffer_);
  auto end = written_ + buffer_.size();
  for (const auto& part : parts) {
    add(part);
    end += part.size();
  }
  file_.write(written_, list);
  written_ = end;
  buffer_.clear();
  if (written_ - writing_back_ >= kWriteBack) {
    file_.start_writing_back(writing_back_, written_ - writing_back_);
    writing_back_ = written_;
  }
}

void TransactionWriter::vote() {
  auto& header = transaction_.header;
  header.length = written_ + buffer_.size() - transaction_.position;
  std::byte length[8];
  put_be<8>(length, header.length);
  put(length);
  const auto encoded = header.encode();
  if (written_ == transaction_.position) {
    std::copy(encoded.begin(), encoded.end(), buffer_.begin());
    flush({});
  } else {
    flush({});
    file_.write(transaction_.position, encoded);
  }
  file_.sync();
}

void TransactionWriter::finish() {
  auto& header = transaction_.header;
  header.status = TransactionHeader::kCommitted;
  const auto status = static_cast<std::byte>(header.status);
  file_.write(transaction_.position + TransactionHeader::kStatusOffset, ByteView(&status, 1));
  file_.sync();
}

void TransactionWriter::abort() noexcept {
  try {
    if (file_.size() > transaction_.position) file_.truncate(transaction_.position);
  } catch (const Error&) {
  }
}

}  // namespace zbig::fs

// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/storage.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "zodb/error.h"
#include "zodb/filestorage/filestorage.h"
#include "zodb/url.h"
#include "zodb/zeo/zeo.h"

namespace zbig {

std::vector<Oid> Storage::changed_oids(Tid after, Tid upto) const {
  std::vector<Oid> oids;
  if (after >= upto) return oids;
  const auto cursor = transactions(Tid{after.value + 1}, upto, /*backwards=*/false);
  while (const auto transaction = cursor->next())
    for (const auto& stored : transaction->stored) oids.push_back(stored.oid);
  std::sort(oids.begin(), oids.end());
  oids.erase(std::unique(oids.begin(), oids.end()), oids.end());
  return oids;
}

void check_meta(const TransactionMeta& meta) {
  constexpr std::size_t kMost = 65535;
  for (const auto& [size, what] :
       {std::pair(meta.user.size(), "user name"), std::pair(meta.description.size(), "description"),
        std::pair(meta.extension.size(), "extension")}) {
    if (size > kMost) {
      throw Invalid("the transaction's " + std::string(what) + " has " + std::to_string(size) +
                    " bytes, at most " + std::to_string(kMost) + " are possible");
    }
  }
}

std::optional<Tid> Storage::find_voted(const std::string& mark) const {
  return Tid::parse_hex(mark);
}

void Storage::check(const std::function<void(const std::string&)>&) const {}

void Storage::read_direct(std::span<DirectRead> reads, Tid at) const {
  std::vector<Oid> oids;
  for (const DirectRead& direct : reads) oids.push_back(direct.oid);
  std::vector<std::optional<RecordRef>> located(oids.size());
  locate(oids, at, located);
  std::vector<ReadPart> parts;
  for (std::size_t i = 0; i < reads.size(); ++i) {
    DirectRead& direct = reads[i];
    direct.answer(located[i]);
    if (direct.head_size > 0)
      parts.push_back({*direct.ref, 0, direct.head.first(direct.head_size)});
    if (direct.out_size > 0)
      parts.push_back({*direct.ref, direct.offset, direct.out.first(direct.out_size)});
  }
  if (!parts.empty()) read(parts);
}

void DirectRead::answer(const std::optional<RecordRef>& located) {
  ref = located;
  const std::uint64_t size = ref ? ref->size : 0;
  head_size = static_cast<std::size_t>(std::min<std::uint64_t>(head.size(), size));
  out_size = static_cast<std::size_t>(
      std::min<std::uint64_t>(out.size(), size > offset ? size - offset : 0));
}

std::optional<RecordRef> Storage::locate(Oid oid, Tid at) const {
  std::optional<RecordRef> found;
  locate(std::span(&oid, 1), at, std::span(&found, 1));
  return found;
}

std::optional<Record> Storage::load(Oid oid, Tid at, std::uint64_t max_size) const {
  std::optional<Record> found;
  load(std::span(&oid, 1), at, max_size, std::span(&found, 1));
  return found;
}

void Storage::read(const RecordRef& ref, std::uint64_t offset, std::span<std::byte> out) const {
  const ReadPart part{ref, offset, out};
  read(std::span(&part, 1));
}

namespace {

std::string path_of_file_url(std::string_view rest, const std::string& url) {
  if (rest.find_first_of("?#") != std::string_view::npos)
    throw Invalid("database '" + url + "': a file takes no options");
  if (!rest.starts_with('/'))
    throw Invalid("database '" + url + "': write file:///PATH with an absolute path, or the path");
  return percent_decode(rest, url);
}

}  // namespace

std::unique_ptr<Storage> open_storage(const std::string& url, OpenMode mode) {
  if (url.empty() || url.find('\0') != std::string::npos)
    throw Invalid("a database is named by a path or a URL; this is neither");

  std::string path = url;
  if (const auto colon = url.find("://"); colon != std::string::npos) {
    const std::string_view scheme = std::string_view(url).substr(0, colon);
    const std::string_view rest = std::string_view(url).substr(colon + 3);
    if (scheme == "zeo") return open_zeo(url, mode);
    if (scheme == "neo" || scheme == "neos" || scheme == "postgresql")
      throw Unsupported("database '" + url + "': " + std::string(scheme) +
                        ":// is not in this version, only file:// and zeo:// are");
    if (scheme != "file")
      throw Invalid("database '" + url + "': no kind of database is named by '" +
                    std::string(scheme) + "://'");
    path = path_of_file_url(rest, url);
  }
  return open_filestorage(path, mode);
}

}  // namespace zbig

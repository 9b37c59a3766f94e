// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/zeo/zeo_storage.h"

#include <algorithm>
#include <cstring>

#include "zodb/error.h"
#include "zodb/zeo/history.h"
#include "zodb/zeo/server_error.h"
#include "zodb/zeo/zeo.h"

namespace zbig {

std::unique_ptr<Storage> open_zeo(const std::string& url, OpenMode mode) {
  return std::make_unique<zeo::ZeoStorage>(zeo::Options::parse(url), mode);
}

std::string canonical_zeo_url(const std::string& url) { return zeo::Options::parse(url).url(); }

}  // namespace zbig

namespace zbig::zeo {
namespace {

constexpr std::uint64_t kLeastCache = 32u << 20;

}  // namespace

ZeoStorage::ZeoStorage(const Options& options, OpenMode mode)
    : url_(options.url()),
      read_only_(mode == OpenMode::kRead),
      wait_timeout_(options.wait_timeout),
      cache_(options.cache_size),
      feed_(cache_, subscribers_),
      loader_(link_, cache_, feed_),
      oids_(link_),
      link_(options, read_only_, feed_) {}

Tid ZeoStorage::last_tid() const {
  if (feed_.head() == kNoTid) link_.ready(link_.patience());
  return feed_.head();
}

Tid ZeoStorage::sync() {
  link_.sync();
  return feed_.head();
}

void ZeoStorage::locate(std::span<const Oid> oids, Tid at,
                        std::span<std::optional<RecordRef>> out) const {
  invariant(oids.size() == out.size(), "locate gives one answer an oid");
  std::vector<Loader::Wanted> wanted;
  for (const Oid oid : oids) wanted.push_back({oid, at});
  loader_.load(wanted, [&](std::size_t i, const LoadedPtr& loaded) {
    out[i].reset();
    if (loaded) out[i] = RecordRef{loaded->oid, loaded->serial, loaded->data.size(), 0, 0};
  });
}

void ZeoStorage::read(std::span<const ReadPart> parts) const {
  const auto copy = [](const ReadPart& part, const Loaded& loaded) {
    if (part.out.empty()) return;
    std::memcpy(part.out.data(), loaded.data.data() + part.offset, part.out.size());
  };
  std::vector<Loader::Wanted> wanted;
  std::vector<const ReadPart*> missing;
  for (const ReadPart& part : parts) {
    const RecordRef& ref = part.ref;
    invariant(part.offset <= ref.size && part.out.size() <= ref.size - part.offset,
              "a read keeps within its record");
    if (const auto loaded = cache_.find_revision(ref.oid, ref.serial)) {
      copy(part, *loaded);
    } else {
      wanted.push_back({ref.oid, ref.serial});
      missing.push_back(&part);
    }
  }
  loader_.load(wanted, [&](std::size_t i, const LoadedPtr& loaded) {
    const RecordRef& ref = missing[i]->ref;
    if (!loaded || loaded->serial != ref.serial || loaded->data.size() != ref.size) {
      throw NotFound("object " + ref.oid.brief() + " of tid " + ref.serial.hex() + " in " + url_ +
                     " was packed away");
    }
    copy(*missing[i], *loaded);
  });
}

void ZeoStorage::load(std::span<const Oid> oids, Tid at, std::uint64_t max_size,
                      std::span<std::optional<Record>> out) const {
  invariant(oids.size() == out.size(), "load gives one answer an oid");
  std::vector<Loader::Wanted> wanted;
  for (const Oid oid : oids) wanted.push_back({oid, at});
  loader_.load(wanted, [&](std::size_t i, const LoadedPtr& loaded) {
    out[i].reset();
    if (!loaded) return;
    if (loaded->data.size() > max_size) {
      throw Corrupt("object " + loaded->oid.brief() + " at tid " + loaded->serial.hex() + " in " +
                    url_ + ": " + std::to_string(loaded->data.size()) + " bytes where at most " +
                    std::to_string(max_size) + " are expected");
    }
    out[i] = Record{loaded->serial, {loaded->data.begin(), loaded->data.end()}};
  });
}

void ZeoStorage::prefetch(std::span<const Oid> oids, Tid at) const {
  // A small cache would have dropped them before they are asked for.
  if (cache_.capacity() >= kLeastCache) loader_.prefetch(oids, at);
}

std::unique_ptr<TransactionCursor> ZeoStorage::transactions(Tid first, Tid last,
                                                            bool backwards) const {
  return zeo::transactions(link_, first, std::min(last, kMaxTid), backwards);
}

std::vector<Revision> ZeoStorage::history(Oid oid, std::size_t limit) const {
  std::vector<Revision> out;
  if (limit == 0) return out;
  const auto size = static_cast<std::int64_t>(std::min<std::size_t>(limit, 1u << 30));
  const Arg args[] = {Arg(oid), Arg(size)};
  const Reply reply = link_.ask(link_.patience(), "history", args);
  if (is_key_error(*reply)) return out;
  const std::string where = link_.name() + ": history of object " + oid.brief();
  if (reply->is_exception()) throw_server_error(*reply, where);
  const auto revisions = sequence(reply->args());
  if (!revisions) throw Corrupt(where + " is no list");
  for (const Value item : *revisions) {
    const auto tid = item.get("tid");
    const auto serial = tid ? id_of(*tid) : std::nullopt;
    if (!serial) throw Corrupt(where + " has no tid");
    const auto text = [&](std::string_view key) {
      const auto found = item.get(key);
      return std::string(found ? found->text().value_or("") : "");
    };
    const auto bytes = item.get("size");
    const std::int64_t record_size = bytes ? bytes->integer().value_or(0) : 0;
    out.push_back({Tid{*serial}, static_cast<std::uint64_t>(std::max<std::int64_t>(record_size, 0)),
                   text("user_name"), text("description")});
  }
  return out;
}

std::vector<Oid> ZeoStorage::changed_oids(Tid after, Tid upto) const {
  if (after >= upto) return {};
  if (auto known = feed_.changed(after, upto)) return *std::move(known);
  return Storage::changed_oids(after, upto);
}

std::unique_ptr<Subscription> ZeoStorage::subscribe(InvalidationFn callback) {
  auto subscription = subscribers_.add(std::move(callback));
  link_.start();
  return subscription;
}

void ZeoStorage::check_writable() const {
  if (read_only_) throw ReadOnly(url_ + " is open for reading only");
}

Oid ZeoStorage::new_oid() {
  check_writable();
  return oids_.next();
}

}  // namespace zbig::zeo

// SPDX-License-Identifier: BSD-3-Clause
#include "agent/device_record.h"

#include <fstream>

#include <gtest/gtest.h>

#include "tests/support/temp_dir.h"

namespace zbig {
namespace {

DeviceRecord sample() {
  DeviceRecord record;
  record.name = "A";
  record.url = "/srv/Data.fs";
  record.volume = "/A";
  record.export_name = "/A#A-2";
  record.pinned = Tid{0x03f0000000000001};
  record.follow = false;
  record.format = BlockFormat::kAuto;
  record.size = 1u << 20;
  record.front_end = FrontEndKind::kSocket;
  record.fuse_path = "/mnt/\xff";  // a path need not be UTF-8
  record.complete = true;
  record.attached = false;
  return record;
}

TEST(DeviceRecord, Text_ReadAgain_IsTheSame) {
  DeviceRecord record = sample();
  record.fuse_path = "/mnt/x";
  const DeviceRecord again = device_record_from(to_text(record));
  EXPECT_EQ(to_text(again), to_text(record));
  EXPECT_EQ(again.pinned, record.pinned);
  EXPECT_EQ(again.front_end, record.front_end);
  EXPECT_EQ(again.attached, false);
}

TEST(DeviceRecord, KernelDevice_ReadAgain_HasWhatItIsFoundBy) {
  DeviceRecord record = sample();
  record.front_end = FrontEndKind::kNbd;
  record.fuse_path.clear();
  record.instance = "0123456789abcdef";
  record.nbd_index = 7;
  record.facts = {{"dtype", "<f8"}};
  const DeviceRecord again = device_record_from(to_text(record));
  EXPECT_EQ(again.front_end, FrontEndKind::kNbd);
  EXPECT_EQ(again.instance, record.instance);
  EXPECT_EQ(again.nbd_index, record.nbd_index);
  EXPECT_EQ(again.facts, record.facts);
}

TEST(DeviceRecord, Text_OfAVersionWithoutKernelDevices_IsRead) {
  std::string text = to_text(sample());
  for (const char* key : {"instance", "nbd_index", "nbd_index_asked", "facts"}) {
    const std::size_t at = text.find(std::string("\"") + key + "\":");
    ASSERT_NE(at, std::string::npos) << key;
    text.erase(at, text.find('\n', at) - at);
  }
  EXPECT_EQ(device_record_from(text).nbd_index, std::nullopt);
}

TEST(DeviceRecord, Text_CutAnywhere_IsRefused) {
  const std::string text = to_text(sample());
  for (std::size_t n = 0; n + 2 < text.size(); n += 7) {
    EXPECT_THROW(device_record_from(text.substr(0, n)), Error) << n;
  }
  EXPECT_THROW(device_record_from("{\"format_version\": 99}"), Error);
  EXPECT_THROW(device_record_from("[]"), Error);
}

TEST(DeviceName, FromVolume_IsSafe) {
  EXPECT_EQ(device_name_from("/A"), "A");
  EXPECT_EQ(device_name_from("/site/my data"), "my_data");
  EXPECT_EQ(device_name_from("oid:1a"), "oid_1a");
  EXPECT_EQ(device_name_from("/x/.hidden"), "v.hidden");
  EXPECT_EQ(device_name_from("/"), "v");
  EXPECT_EQ(device_name_from("/frozen"), "frozen-1");
  EXPECT_TRUE(valid_device_name(device_name_from("/" + std::string(300, 'x'))));
  EXPECT_TRUE(valid_device_name(device_name_from("/\xc3\xa4")));
}

TEST(DeviceName, Valid_OnlySafeOnes) {
  for (const char* name : {"", ".", "..", "a/b", "-a", "a b", "frozen", "a\n"}) {
    EXPECT_FALSE(valid_device_name(name)) << name;
  }
  EXPECT_FALSE(valid_device_name(std::string(65, 'a')));
  EXPECT_TRUE(valid_device_name("A.b_c-2"));
}

TEST(DeviceStore, WhatEachCommitSaves_WrittenOverLongerText_IsReadAlone) {
  const test::TempDir dir;
  const DeviceStore store(dir.path());
  store.save(sample());
  using Marks = std::vector<std::string>;
  EXPECT_EQ(store.voted("A"), Marks{});
  store.save_voted("A", {"one", "two and more", "three"});
  EXPECT_EQ(store.voted("A"), (Marks{"one", "two and more", "three"}));
  store.save_voted("A", {"four"});
  EXPECT_EQ(store.voted("A"), Marks{"four"});
  store.save_voted("A", {});
  EXPECT_EQ(store.voted("A"), Marks{});

  store.save_last_commit("A", {.tid = {}, .time = "t", .result = std::string(5000, 'e')});
  store.save_last_commit("A", {.tid = Tid{4}, .time = "t", .result = "committed"});
  EXPECT_EQ(store.last_commit("A")->tid, Tid{4});
  EXPECT_EQ(store.last_commit("A")->result, "committed");
}

TEST(DeviceStore, Load_OneIsDamaged_TheOthersAreThere) {
  const test::TempDir dir;
  const DeviceStore store(dir.path());
  DeviceRecord record = sample();
  record.fuse_path.clear();
  store.save(record);
  record.name = "B";
  store.save(record);
  std::ofstream(store.directory("A") + "/device.json") << "{";
  const DeviceStore::Loaded loaded = store.load();
  ASSERT_EQ(loaded.records.size(), 1u);
  EXPECT_EQ(loaded.records[0].name, "B");
  EXPECT_EQ(loaded.unreadable, std::vector<std::string>{"A"});
}

}  // namespace
}  // namespace zbig

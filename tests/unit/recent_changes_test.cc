// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/filestorage/recent_changes.h"

#include <gtest/gtest.h>

namespace zbig::fs {
namespace {

using Oids = std::vector<Oid>;

TEST(RecentChanges, Between_WithinWhatIsKnown_GivesTheUnionInOrder) {
  RecentChanges recent;
  recent.reset(Tid{10});
  recent.add(Tid{11}, Oids{{5}, {1}});
  recent.add(Tid{12}, Oids{{3}, {1}});
  recent.add(Tid{14}, Oids{{9}});
  EXPECT_EQ(recent.between(Tid{10}, Tid{12}), (Oids{{1}, {3}, {5}}));
  EXPECT_EQ(recent.between(Tid{11}, Tid{13}), (Oids{{1}, {3}}));
  EXPECT_EQ(recent.between(Tid{14}, Tid{14}), Oids{});
  EXPECT_EQ(recent.between(Tid{14}, Tid{12}), Oids{});
}

TEST(RecentChanges, Between_FromBeforeWhatIsKnown_IsNotKnown) {
  RecentChanges recent;
  recent.reset(Tid{10});
  EXPECT_EQ(recent.between(Tid{9}, Tid{10}), std::nullopt);
  EXPECT_EQ(recent.between(Tid{10}, Tid{10}), Oids{});
}

TEST(RecentChanges, Add_ManyTransactions_ForgetsTheOldest) {
  RecentChanges recent;
  recent.reset(Tid{0});
  for (std::uint64_t tid = 1; tid <= 40; ++tid) recent.add(Tid{tid}, Oids{{tid}});
  EXPECT_EQ(recent.between(Tid{7}, Tid{40}), std::nullopt);
  EXPECT_EQ(recent.between(Tid{8}, Tid{10}), (Oids{{9}, {10}}));
}

TEST(RecentChanges, Add_ALargeTransaction_ForgetsItAndAllBefore) {
  RecentChanges recent;
  recent.reset(Tid{0});
  recent.add(Tid{1}, Oids{{1}});
  recent.add(Tid{2}, Oids(1000));
  recent.add(Tid{3}, Oids{{3}});
  EXPECT_EQ(recent.between(Tid{1}, Tid{3}), std::nullopt);
  EXPECT_EQ(recent.between(Tid{2}, Tid{3}), Oids{{3}});
}

}  // namespace
}  // namespace zbig::fs

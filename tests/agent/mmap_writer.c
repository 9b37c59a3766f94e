// SPDX-License-Identifier: BSD-3-Clause
//
// A legacy program: it knows nothing of ZODB, maps a file and changes bytes of it.
//
//   mmap_writer FILE SEED COUNT [msync|fsync|none]
//
// COUNT runs of 1 to 3000 bytes at random places, a function of SEED and the file's size alone: run
// on a copy of the file it makes the copy equal. At the end msync or fsync, if told so; with `none`
// the changes are left in the kernel, for `zbig commit` to fetch.

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static uint64_t state;

static uint64_t next_random(void) {
  state += 0x9e3779b97f4a7c15u;
  uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

static int fail(const char* what) {
  fprintf(stderr, "mmap_writer: %s: %s\n", what, strerror(errno));
  return 1;
}

int main(int argc, char** argv) {
  if (argc < 4) {
    fprintf(stderr, "usage: mmap_writer FILE SEED COUNT [msync|fsync|none]\n");
    return 2;
  }
  state = strtoull(argv[2], NULL, 10);
  const unsigned long count = strtoul(argv[3], NULL, 10);
  const char* end = argc > 4 ? argv[4] : "none";

  const int fd = open(argv[1], O_RDWR);
  if (fd < 0) return fail(argv[1]);
  const off_t end_of_file = lseek(fd, 0, SEEK_END);  // of a block device too
  if (end_of_file <= 0) return fail("lseek");
  const size_t size = (size_t)end_of_file;
  unsigned char* bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (bytes == MAP_FAILED) return fail("mmap");

  for (unsigned long i = 0; i < count; ++i) {
    const size_t at = next_random() % size;
    size_t length = 1 + next_random() % 3000;
    if (length > size - at) length = size - at;
    const uint64_t value = next_random();
    for (size_t j = 0; j < length; ++j) bytes[at + j] = (unsigned char)(value >> (j % 7 * 8));
  }

  if (strcmp(end, "msync") == 0 && msync(bytes, size, MS_SYNC) != 0) return fail("msync");
  if (strcmp(end, "fsync") == 0 && fsync(fd) != 0) return fail("fsync");
  if (munmap(bytes, size) != 0) return fail("munmap");
  if (close(fd) != 0) return fail("close");
  return 0;
}

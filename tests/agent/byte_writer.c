// SPDX-License-Identifier: BSD-3-Clause
//
// Legacy programs that know nothing of ZODB and change bytes of a file, which may be a device.
//
//   byte_writer change FILE SEED COUNT [msync|fsync|none]
//
// Changes COUNT runs of bytes through a mapping, at places that follow from SEED and the file's
// size alone: run on a copy of the file it makes the copy equal. At the end msync or fsync, if told
// so; with `none` the changes are left in the kernel, for `zbig commit` to fetch.
//
//   byte_writer verify FILE BEGIN LENGTH SEED MODEL WAY...
//
// Must not notice when servers and agents die: until SIGTERM it changes runs of bytes of
// [BEGIN, BEGIN + LENGTH) and looks whether all that it wrote is there, each time by one of the
// ways: `mapped`, `plain` (read and write), `direct` (the same with O_DIRECT); now and then it
// calls fsync. In the end MODEL has what these bytes must be. Prints the rounds, and how long the
// longest lasted. BEGIN and LENGTH are multiples of 4096. Any error is its end.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { kPage = 4096, kLongestRun = 6000, kLook = 65536 };

static uint64_t state;

static uint64_t next_random(void) {
  state += 0x9e3779b97f4a7c15u;
  uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

_Noreturn static void fail(const char* what) {
  fprintf(stderr, "byte_writer: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void lost(int number) {
  (void)number;
  static const char text[] = "byte_writer: SIGBUS: a page cannot be had\n";
  if (write(STDERR_FILENO, text, sizeof text - 1) < 0) _exit(2);
  _exit(1);
}

static volatile sig_atomic_t told_to_end;
static void end(int number) {
  (void)number;
  told_to_end = 1;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

typedef struct {
  int fd;
  int direct_fd;  // -1: not needed
  size_t size;
  unsigned char* bytes;   // the mapping
  unsigned char* buffer;  // for O_DIRECT, kLook and two pages
} File;

static File open_file(const char* path, bool direct) {
  File file = {.fd = open(path, O_RDWR), .direct_fd = -1};
  if (file.fd < 0) fail(path);
  const off_t size = lseek(file.fd, 0, SEEK_END);  // of a block device too
  if (size <= 0) fail("lseek");
  file.size = (size_t)size;
  file.bytes = mmap(NULL, file.size, PROT_READ | PROT_WRITE, MAP_SHARED, file.fd, 0);
  if (file.bytes == MAP_FAILED) fail("mmap");
  if (direct) {
    file.direct_fd = open(path, O_RDWR | O_DIRECT);
    if (file.direct_fd < 0) fail("open with O_DIRECT");
  }
  file.buffer = aligned_alloc(kPage, kLook + 2 * kPage);
  if (file.buffer == NULL) fail("malloc");
  return file;
}

static int change(int argc, char** argv) {
  state = strtoull(argv[3], NULL, 10);
  const unsigned long count = strtoul(argv[4], NULL, 10);
  const char* ending = argc > 5 ? argv[5] : "none";
  const File file = open_file(argv[2], false);
  for (unsigned long i = 0; i < count; ++i) {
    const size_t at = next_random() % file.size;
    size_t length = 1 + next_random() % 3000;
    if (length > file.size - at) length = file.size - at;
    const uint64_t value = next_random();
    for (size_t j = 0; j < length; ++j) file.bytes[at + j] = (unsigned char)(value >> (j % 7 * 8));
  }
  if (strcmp(ending, "msync") == 0 && msync(file.bytes, file.size, MS_SYNC) != 0) fail("msync");
  if (strcmp(ending, "fsync") == 0 && fsync(file.fd) != 0) fail("fsync");
  if (munmap(file.bytes, file.size) != 0) fail("munmap");
  if (close(file.fd) != 0) fail("close");
  return 0;
}

typedef enum { kMapped, kPlain, kDirect } Way;
static const char* const kNames[] = {"mapped", "plain", "direct"};

static Way way_named(const char* name) {
  for (Way way = kMapped; way <= kDirect; ++way) {
    if (strcmp(name, kNames[way]) == 0) return way;
  }
  errno = EINVAL;
  fail(name);
}

// The model's bytes [at, at + length), which are those at begin + at of the file, go there.
static void put(const File* file, size_t begin, const unsigned char* model, size_t at,
                size_t length, Way way) {
  if (way == kMapped) {
    memcpy(file->bytes + begin + at, model + at, length);
    return;
  }
  int fd = file->fd;
  const unsigned char* from = model + at;
  if (way == kDirect) {
    // Whole pages: the model knows the rest of them too.
    const size_t first = at / kPage * kPage;
    length = (at + length + kPage - 1) / kPage * kPage - first;
    at = first;
    memcpy(file->buffer, model + at, length);
    from = file->buffer;
    fd = file->direct_fd;
  }
  if (pwrite(fd, from, length, (off_t)(begin + at)) != (ssize_t)length) fail("write");
}

static void look(const File* file, size_t begin, const unsigned char* model, size_t at,
                 size_t length, Way way) {
  const unsigned char* found = file->bytes + begin + at;
  if (way != kMapped) {
    const int fd = way == kDirect ? file->direct_fd : file->fd;
    if (pread(fd, file->buffer, length, (off_t)(begin + at)) != (ssize_t)length) fail("read");
    found = file->buffer;
  }
  for (size_t i = 0; i < length; ++i) {
    if (found[i] == model[at + i]) continue;
    fprintf(stderr, "byte_writer: byte %zu by %s is %u, and not %u as was written\n",
            begin + at + i, kNames[way], found[i], model[at + i]);
    exit(1);
  }
}

static int verify(int argc, char** argv) {
  const size_t begin = strtoull(argv[3], NULL, 10);
  const size_t length = strtoull(argv[4], NULL, 10);
  state = strtoull(argv[5], NULL, 10);
  char** ways = argv + 7;
  const size_t way_count = (size_t)(argc - 7);
  bool direct = false;
  for (size_t i = 0; i < way_count; ++i) direct |= way_named(ways[i]) == kDirect;
  signal(SIGBUS, lost);
  signal(SIGTERM, end);
  const File file = open_file(argv[2], direct);
  unsigned char* model = malloc(length);
  if (model == NULL || begin + length > file.size || length < 2 * kLook) fail("LENGTH");
  memcpy(model, file.bytes + begin, length);

  unsigned long rounds = 0;
  double longest = 0;
  for (; !told_to_end; ++rounds) {
    const double start = now();
    for (int i = 0; i < 8; ++i) {
      const size_t at = next_random() % (length - kLongestRun);
      const size_t run = 1 + next_random() % kLongestRun;
      memset(model + at, (int)(next_random() % 256), run);
      put(&file, begin, model, at, run, way_named(ways[next_random() % way_count]));
    }
    for (int i = 0; i < 8; ++i) {
      const size_t at = next_random() % ((length - kLook) / kPage) * kPage;
      look(&file, begin, model, at, kLook, way_named(ways[next_random() % way_count]));
    }
    if (rounds % 50 == 0 && fsync(file.fd) != 0) fail("fsync");
    if (now() - start > longest) longest = now() - start;
    const struct timespec pause = {0, 1000000};
    nanosleep(&pause, NULL);
  }
  if (fsync(file.fd) != 0) fail("fsync");
  for (size_t at = 0; at < length; at += kPage) {
    for (size_t i = 0; i < way_count; ++i) {
      look(&file, begin, model, at, kPage, way_named(ways[i]));
    }
  }
  FILE* out = fopen(argv[6], "w");
  if (out == NULL || fwrite(model, 1, length, out) != length || fclose(out) != 0) fail(argv[6]);
  printf("%lu rounds, the longest of %.0f ms\n", rounds, longest);
  return 0;
}

int main(int argc, char** argv) {
  if (argc >= 5 && argc <= 6 && strcmp(argv[1], "change") == 0) return change(argc, argv);
  if (argc >= 8 && strcmp(argv[1], "verify") == 0) return verify(argc, argv);
  fprintf(stderr,
          "usage: byte_writer change FILE SEED COUNT [msync|fsync|none]\n"
          "       byte_writer verify FILE BEGIN LENGTH SEED MODEL mapped|plain|direct...\n");
  return 2;
}

// SPDX-License-Identifier: BSD-3-Clause
//
// A program that must not notice when servers and agents die: it keeps one mapping of a file,
// changes random bytes of its first half and checks that all it wrote is there, now and then after
// an msync.
//
//   mapped_writer FILE SECONDS SEED MODEL
//
// The second half is somebody else's, who counts in the last 8 bytes: the count must never go back.
// In the end MODEL is what the first half must be, and it prints the rounds and the last count.

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
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
  fprintf(stderr, "mapped_writer: %s: %s\n", what, strerror(errno));
  return 1;
}

static void lost(int number) {
  (void)number;
  static const char text[] = "mapped_writer: SIGBUS: a page cannot be had\n";
  if (write(STDERR_FILENO, text, sizeof text - 1) < 0) _exit(2);
  _exit(1);
}

int main(int argc, char** argv) {
  if (argc != 5) return fail("usage: mapped_writer FILE SECONDS SEED MODEL");
  const time_t end = time(NULL) + atoi(argv[2]);
  state = strtoull(argv[3], NULL, 10);
  signal(SIGBUS, lost);
  const int fd = open(argv[1], O_RDWR);
  if (fd < 0) return fail(argv[1]);
  const off_t end_of_file = lseek(fd, 0, SEEK_END);  // of a block device too
  if (end_of_file <= 0) return fail("lseek");
  const size_t size = (size_t)end_of_file;
  const size_t half = size / 2;
  unsigned char* bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (bytes == MAP_FAILED) return fail("mmap");
  unsigned char* model = malloc(half);
  if (model == NULL) return fail("malloc");
  memcpy(model, bytes, half);

  unsigned long rounds = 0;
  uint64_t count = 0;
  for (; time(NULL) < end; ++rounds) {
    for (int i = 0; i < 8; ++i) {
      const size_t at = next_random() % (half - 6000);
      const size_t length = 1 + next_random() % 6000;
      const int value = (int)(next_random() % 256);
      memset(model + at, value, length);
      memset(bytes + at, value, length);
    }
    for (int i = 0; i < 8; ++i) {
      const size_t at = next_random() % (half - 65536);
      if (memcmp(bytes + at, model + at, 65536) != 0) {
        fprintf(stderr, "mapped_writer: bytes at %zu are not what was written, round %lu\n", at,
                rounds);
        return 1;
      }
    }
    uint64_t seen;
    memcpy(&seen, bytes + size - 8, sizeof seen);
    if (seen < count) {
      fprintf(stderr, "mapped_writer: the count went from %llu back to %llu\n",
              (unsigned long long)count, (unsigned long long)seen);
      return 1;
    }
    count = seen;
    if (rounds % 50 == 0 && msync(bytes, size, MS_SYNC) != 0) return fail("msync");
    const struct timespec pause = {0, 1000000};
    nanosleep(&pause, NULL);
  }
  if (msync(bytes, size, MS_SYNC) != 0) return fail("msync");
  if (memcmp(bytes, model, half) != 0) {
    fprintf(stderr, "mapped_writer: in the end the bytes are not what was written\n");
    return 1;
  }
  FILE* file = fopen(argv[4], "w");
  if (file == NULL || fwrite(model, 1, half, file) != half || fclose(file) != 0) {
    return fail(argv[4]);
  }
  printf("%lu rounds, last count %llu\n", rounds, (unsigned long long)count);
  return 0;
}

// SPDX-License-Identifier: BSD-3-Clause

// patch: a program that knows nothing of zbig, ZODB or block devices. It maps a file into memory,
// and looks at some bytes or changes them there. The demo and tests run it on a device.
//
//   patch show FILE OFFSET LENGTH
//   patch watch FILE OFFSET LENGTH    shows them, and again when they change in its memory
//   patch write FILE OFFSET TEXT

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void fail(const char* what, const char* file) {
  fprintf(stderr, "patch: %s ", what);
  perror(file);
  exit(1);
}

// Shows the bytes, then only looks at memory, for a minute at most, until they are others.
static int watch(const char* bytes, size_t length) {
  char* before = malloc(length);
  if (before == NULL) fail("remember", "the bytes");
  memcpy(before, bytes, length);
  fwrite(before, 1, length, stdout);
  fflush(stdout);
  const struct timespec pause = {.tv_sec = 0, .tv_nsec = 1000000};
  int rounds = 60000;
  while (memcmp(before, bytes, length) == 0 && --rounds > 0) nanosleep(&pause, NULL);
  fwrite(bytes, 1, length, stdout);
  free(before);
  return rounds == 0;
}

int main(int argc, char** argv) {
  const int known = argc == 5 && (strcmp(argv[1], "show") == 0 || strcmp(argv[1], "watch") == 0 ||
                                  strcmp(argv[1], "write") == 0);
  if (!known) {
    fprintf(stderr, "usage: patch show|watch FILE OFFSET LENGTH | patch write FILE OFFSET TEXT\n");
    return 2;
  }
  const int writing = strcmp(argv[1], "write") == 0;
  const char* file = argv[2];
  const size_t offset = strtoul(argv[3], NULL, 0);
  const size_t length = writing ? strlen(argv[4]) : strtoul(argv[4], NULL, 0);

  const int fd = open(file, writing ? O_RDWR : O_RDONLY);
  if (fd < 0) fail("open", file);
  const off_t end = lseek(fd, 0, SEEK_END);  // of block devices, too
  if (end < 0) fail("find the end of", file);
  const size_t size = (size_t)end;
  if (offset > size || length > size - offset) {
    fprintf(stderr, "patch: %s has only %zu bytes\n", file, size);
    return 1;
  }
  char* memory = mmap(NULL, size, writing ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) fail("map", file);
  close(fd);

  int status = 0;
  if (writing) {
    memcpy(memory + offset, argv[4], length);
    if (msync(memory, size, MS_SYNC) != 0) fail("sync", file);
  } else if (strcmp(argv[1], "watch") == 0) {
    status = watch(memory + offset, length);
  } else {
    fwrite(memory + offset, 1, length, stdout);
  }
  munmap(memory, size);
  return fflush(stdout) == 0 ? status : 1;
}

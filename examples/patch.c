// SPDX-License-Identifier: BSD-3-Clause

// patch: a program that knows nothing of zbig, ZODB or block devices. It maps a file into memory,
// and looks at some bytes or changes them there. The demo and tests run it on a device.
//
//   patch show FILE OFFSET LENGTH
//   patch write FILE OFFSET TEXT

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static void fail(const char* what, const char* file) {
  fprintf(stderr, "patch: %s ", what);
  perror(file);
  exit(1);
}

int main(int argc, char** argv) {
  if (argc != 5 || (strcmp(argv[1], "show") != 0 && strcmp(argv[1], "write") != 0)) {
    fprintf(stderr, "usage: patch show FILE OFFSET LENGTH | patch write FILE OFFSET TEXT\n");
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

  if (writing) {
    memcpy(memory + offset, argv[4], length);
    if (msync(memory, size, MS_SYNC) != 0) fail("sync", file);
  } else {
    fwrite(memory + offset, 1, length, stdout);
  }
  munmap(memory, size);
  return fflush(stdout) == 0 ? 0 : 1;
}

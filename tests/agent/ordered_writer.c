// SPDX-License-Identifier: BSD-3-Clause
//
// A program that knows nothing of commits:
//
//   ordered_writer FILE
//
// It counts, by plain stores to the mapped file, for ever: first the word at the begin of the file,
// then the word in its last page. So at every instant the first is the second, or one more. It also
// writes, without a change, to the pages between them, so that nobody takes the two at one time by
// chance.

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

enum { kPage = 4096 };

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const int fd = open(argv[1], O_RDWR);
  const off_t end = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
  if (end < 3 * kPage) {
    perror(argv[1]);
    return 1;
  }
  const size_t size = (size_t)end;
  unsigned char* bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (bytes == MAP_FAILED) {
    perror("mmap");
    return 1;
  }
  volatile uint64_t* first = (volatile uint64_t*)bytes;
  volatile uint64_t* second = (volatile uint64_t*)(bytes + size - kPage);
  volatile unsigned char* others = bytes + kPage;
  const size_t between = size / kPage - 2;
  for (uint64_t count = *first > *second ? *first : *second;; ++count) {
    *first = count;
    *second = count;
    if (count % 256 == 0) others[count / 256 % between * kPage] = 0;
  }
}

# SPDX-License-Identifier: BSD-3-Clause
"""Runs the rows that were asked for and writes results.md and results.json."""
import argparse
import json
import os
import platform
import sys
import traceback

import harness
import rows_attach
import rows_growth
import rows_mapped
import rows_read
import rows_size
import rows_write
import rows_zeo

ROWS = {
    'R1': rows_read.sequential_zblk0,
    'R2': rows_read.sequential_zblk1,
    'R3': rows_read.random_4k,
    'R4': rows_mapped.whole_file,
    'R5': rows_mapped.first_touch,
    'R6': rows_mapped.again,
    'I1': rows_mapped.freshness,
    'I2': rows_mapped.drop,
    'W1': rows_write.commit_zblk0,
    'W2': rows_write.commit_zblk1,
    'W3': rows_write.one_byte_in_100_blocks,
    'W4': rows_write.one_page,
    'W5': rows_write.appends,
    'M1': rows_size.memory,
    'A1': rows_attach.with_index,
    'A2': rows_attach.without_index,
    'D1': rows_size.database_size,
    'F1': rows_write.freeze,
    'Z1': rows_zeo.sequential,
    'Z2': rows_zeo.again,
    'Z3': rows_zeo.first_touch,
    'Z4': rows_zeo.one_page,
    'Z5': rows_zeo.far_away,
    'Z6': rows_zeo.freshness,
    'G-R3': rows_growth.random_4k,
    'G-W3': rows_growth.one_byte_in_100_blocks,
    'G-W4': rows_growth.one_page,
}


def main():
    parser = argparse.ArgumentParser(prog='bench/run', description=__doc__)
    parser.add_argument('rows', nargs='*', metavar='ROW', help=' '.join(ROWS))
    parser.add_argument('--quick', action='store_true',
                        help='smaller data, fewer runs: a smoke test')
    args = parser.parse_args()
    unknown = [name for name in args.rows if name not in ROWS]
    if unknown:
        parser.error('no row %s; there are %s' % (', '.join(unknown), ' '.join(ROWS)))
    lab, report, failed = harness.Lab(args.quick), harness.Report(), []
    if not lab.has_peers():
        parser.error('no Python peers in %s: run ./run deps, or set PEERS' % harness.PEERS)
    try:
        for name in args.rows or ROWS:
            try:
                ROWS[name](lab, report)
            except Exception:
                traceback.print_exc()
                failed.append(name)
    finally:
        lab.close()
    table = report.markdown()
    print(table)
    with open(os.path.join(lab.results, 'results.md'), 'w') as out:
        out.write(table)
    with open(os.path.join(lab.results, 'results.json'), 'w') as out:
        json.dump({'kernel': platform.release(), 'cpus': os.cpu_count(), 'quick': args.quick,
                   'lines': report.lines, 'failed': failed}, out, indent=1)
    if failed:
        sys.exit('bench: rows that failed to run: ' + ' '.join(failed))


main()

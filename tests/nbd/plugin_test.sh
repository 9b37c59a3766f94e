#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What nbdkit says of the plugin without a database: its keys, its help, its manual page.
# shellcheck source=tests/nbd/lib.sh
. "$(dirname "$0")/lib.sh"

dump=$(nbdkit "$plugin" --dump-plugin)
for line in name=zbig api_version=2 thread_model=parallel errno_is_preserved=0 \
  magic_config_key=url zbig_backends=filestorage,zeo; do
  same "dump-plugin has $line" "$(grep -x "$line" <<< "$dump")" "$line"
done
same "callbacks" "$(grep -o 'has_[a-z_]*' <<< "$dump" | sort | tr '\n' ' ')" "$(tr '\n' ' ' << 'EOF'
has_after_fork
has_block_size
has_cache
has_can_cache
has_can_extents
has_can_fast_zero
has_can_flush
has_can_fua
has_can_multi_conn
has_can_trim
has_can_write
has_can_zero
has_cleanup
has_close
has_config
has_config_complete
has_config_help
has_default_export
has_description
has_dump_plugin
has_export_description
has_extents
has_flush
has_get_ready
has_get_size
has_is_rotational
has_list_exports
has_longname
has_open
has_pread
has_pwrite
has_trim
has_zero
EOF
)"
help=$(nbdkit "$plugin" --help)
for key in url= at=TID control=SOCKET; do
  same "help has $key" "$(grep -cF -- "$key" <<< "$help")" 1
done
same "symbols" "$(nm -D --defined-only "$plugin" | awk '{print $3}' | sort | tr '\n' ' ')" \
  "plugin_init zbig_debug_control zbig_debug_io "

if command -v man > /dev/null && [ -e "$bin/../man/nbdkit-zbig-plugin.1" ]; then
  page=$(man -l "$bin/../man/nbdkit-zbig-plugin.1" 2> /dev/null | col -b)
  for section in NAME SYNOPSIS DESCRIPTION EXAMPLES PARAMETERS "DEBUG FLAGS" FILES "SEE ALSO"; do
    same "manual page has $section" "$(grep -cx "$section" <<< "$page")" 1
  done
fi
finish

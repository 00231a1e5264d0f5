"""The functions by which Envoy and a module call each other.

All were asked of Envoy 1.40 with V8, by a module for each (tests/e2e/test_host_functions.py), and agree with
``include/proxy-wasm/exports.h`` and ``include/proxy-wasm/wasm.h`` of proxy-wasm-cpp-host, July 2026. Signatures are
written as `mirror.wasm.module` does.
"""

from collections.abc import Mapping

ABI_VERSIONS = ("0.1.0", "0.2.0", "0.2.1")
"""The Proxy-Wasm ABI versions that Envoy knows."""


def _table(text: str) -> dict[str, str]:
    """Names to signatures, from lines of one signature and all names that have it."""
    rows = (line.split(": ") for line in text.strip().splitlines())
    return {name: signature.strip() for signature, names in rows for name in names.split()}


_PROXY = _table("""
    i32 -> i32: proxy_get_current_time_nanoseconds proxy_grpc_cancel proxy_grpc_close proxy_set_effective_context
    i32 -> i32: proxy_set_tick_period_milliseconds
    i32 -> void: emscripten_notify_memory_growth
    void -> i32: proxy_done
    i32 i32 -> i32: proxy_get_header_map_size proxy_get_metric pthread_equal
    i32 i64 -> i32: proxy_increment_metric proxy_record_metric
    i32 i32 i32 -> i32: proxy_log proxy_get_status proxy_get_buffer_status proxy_get_header_map_pairs
    i32 i32 i32 -> i32: proxy_set_header_map_pairs proxy_remove_header_map_value
    i32 i32 i32 -> i32: proxy_register_shared_queue proxy_dequeue_shared_queue proxy_enqueue_shared_queue
    i32 i32 i32 i32 -> i32: proxy_define_metric proxy_get_property proxy_set_property proxy_grpc_send
    i32 i32 i32 i32 i32 -> i32: proxy_add_header_map_value proxy_get_header_map_value proxy_replace_header_map_value
    i32 i32 i32 i32 i32 -> i32: proxy_get_buffer_bytes proxy_set_buffer_bytes proxy_resolve_shared_queue
    i32 i32 i32 i32 i32 -> i32: proxy_get_shared_data proxy_set_shared_data
    i32 i32 i32 i32 i32 i32 -> i32: proxy_call_foreign_function
    i32 i32 i32 i32 i32 i32 i32 i32 -> i32: proxy_send_local_response
    i32 i32 i32 i32 i32 i32 i32 i32 i32 -> i32: proxy_grpc_stream
    i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 -> i32: proxy_http_call
    i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 -> i32: proxy_grpc_call
""")
"""Functions of ``env`` under every ABI."""

_PROXY_BY_ABI = {
    "0.1.0": _table("""
        i32 i32 -> i32: proxy_get_configuration
        void -> i32: proxy_continue_request proxy_continue_response proxy_clear_route_cache
    """),
    "0.2.0": _table("i32 -> i32: proxy_continue_stream proxy_close_stream"),
    "0.2.1": _table("i32 -> i32: proxy_continue_stream proxy_close_stream proxy_get_log_level"),
}
"""And those under one."""

_WASI = _table("""
    i32 -> i32: fd_close
    i32 -> void: proc_exit
    void -> i32: sched_yield
    i32 i32 -> i32: args_get args_sizes_get environ_get environ_sizes_get fd_fdstat_get fd_fdstat_set_flags
    i32 i32 -> i32: fd_prestat_get random_get
    i32 i32 i32 -> i32: fd_prestat_dir_name
    i32 i64 i32 -> i32: clock_time_get
    i32 i32 i32 i32 -> i32: fd_read fd_write poll_oneoff
    i32 i64 i32 i32 -> i32: fd_seek
    i32 i32 i32 i32 i32 i64 i64 i32 i32 -> i32: path_open
""")
"""Functions of WASI; most of those that concern files do nothing but fail."""

RECENT_WASI = _table("""
    i32 -> i32: fd_datasync fd_sync
    i32 i32 -> i32: clock_res_get fd_filestat_get fd_renumber fd_tell sock_shutdown
    i32 i64 -> i32: fd_filestat_set_size
    i32 i32 i32 -> i32: path_create_directory path_remove_directory path_unlink_file sock_accept
    i32 i64 i64 -> i32: fd_allocate fd_fdstat_set_rights
    i32 i32 i32 i32 -> i32: path_symlink
    i32 i64 i64 i32 -> i32: fd_advise fd_filestat_set_times
    i32 i32 i32 i32 i32 -> i32: path_filestat_get sock_send
    i32 i32 i32 i64 i32 -> i32: fd_pread fd_pwrite fd_readdir
    i32 i32 i32 i32 i32 i32 -> i32: path_link path_readlink path_rename sock_recv
    i32 i32 i32 i32 i64 i64 i32 -> i32: path_filestat_set_times
""")
"""And those since Envoy 1.38 (1.37 was asked as well). ``path_link`` and ``path_symlink`` are not as in WASI."""

_EXPORTS = _table("""
    i32 -> i32: malloc proxy_on_done proxy_on_new_connection
    i32 -> void: proxy_on_delete proxy_on_log proxy_on_tick
    i32 i32 -> i32: proxy_on_configure proxy_on_vm_start proxy_validate_configuration
    i32 i32 -> i32: proxy_on_request_metadata proxy_on_request_trailers
    i32 i32 -> i32: proxy_on_response_metadata proxy_on_response_trailers
    i32 i32 -> void: proxy_on_context_create proxy_on_queue_ready
    i32 i32 -> void: proxy_on_downstream_connection_close proxy_on_upstream_connection_close
    i32 i32 i32 -> i32: proxy_on_downstream_data proxy_on_upstream_data proxy_on_request_body proxy_on_response_body
    i32 i32 i32 -> void: proxy_on_grpc_close proxy_on_grpc_receive
    i32 i32 i32 -> void: proxy_on_grpc_receive_initial_metadata proxy_on_grpc_receive_trailing_metadata
    i32 i32 i32 i32 i32 -> void: proxy_on_http_call_response
""")
"""What Envoy calls, if a module exports it."""

_EXPORTS_BY_ABI = {
    "0.1.0": _table("i32 i32 -> i32: proxy_on_request_headers proxy_on_response_headers"),
    "0.2.0": _table("""
        i32 i32 i32 -> i32: proxy_on_request_headers proxy_on_response_headers
        i32 i32 i32 -> void: proxy_on_foreign_function
    """),
}
_EXPORTS_BY_ABI["0.2.1"] = _EXPORTS_BY_ABI["0.2.0"]


def offered(abi: str | None) -> Mapping[str, str]:
    """The functions that Envoy offers to modules of an ABI version: ``module.name`` to signature.

    None: under any version, as far as it is the same.
    """
    proxy = dict(_PROXY)
    for version in ABI_VERSIONS if abi is None else (abi,):
        proxy |= _PROXY_BY_ABI[version]
    wasi = _WASI | RECENT_WASI
    return {
        f"{module}.{name}": signature
        for module, functions in (("env", proxy), ("wasi_snapshot_preview1", wasi), ("wasi_unstable", wasi))
        for name, signature in functions.items()
    }


def called(abi: str) -> Mapping[str, str]:
    """The functions that Envoy calls of modules of an ABI version, if they export them, with their signatures."""
    return _EXPORTS | _EXPORTS_BY_ABI[abi]

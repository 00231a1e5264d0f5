"""What a Wasm artifact is: modules, archives and layouts, whatever bytes somebody has pushed."""

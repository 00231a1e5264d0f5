"""What a Wasm artifact is; pure, no I/O."""

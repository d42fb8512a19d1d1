"""What others see: metrics, logs, traces, decisions and the port they are served on."""

"""Steps of every call: admission, the handler, error redaction, logs and the audit trail."""

"""The path of every call: admission, the handler, redacted errors, logs and the audit trail."""

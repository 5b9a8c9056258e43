"""What every call goes through: admission, the handler, redacted errors, logs and the audit trail."""

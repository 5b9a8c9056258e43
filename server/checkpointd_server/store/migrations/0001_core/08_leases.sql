-- Leases are granted, renewed and released under the thread's lock, by the database's clock. Writes are checked under the same
-- lock, so each is entirely before or entirely after a grant.

-- Grants the lease to a holder if it is free and no earlier waiter is left, or extends the holder's own lease. If it isn't granted
-- and p_waits is true, the holder is queued.
--
--   o_token      Null: not granted.
--   o_remaining  Remaining time of the lease, granted or another's, in seconds. Null: it is free, but others are first.
CREATE FUNCTION __schema__.acquire_lease(
    p_tenant text, p_thread uuid, p_thread_id text, p_holder bytea, p_ttl float8, p_waits boolean,
    OUT o_token bigint, OUT o_remaining float8
) LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_thread record;
    x_now timestamptz;
    x_ticket bigint;
BEGIN
    UPDATE __schema__.threads AS t SET updated_at = clock_timestamp() WHERE t.thread = p_thread
    RETURNING t.floor, t.lease_holder, t.lease_token, t.lease_expires_at INTO x_thread;
    IF NOT FOUND THEN
        INSERT INTO __schema__.threads AS t (thread, tenant, thread_id) VALUES (p_thread, p_tenant, p_thread_id)
        ON CONFLICT (thread) DO UPDATE SET updated_at = clock_timestamp()
        RETURNING t.floor, t.lease_holder, t.lease_token, t.lease_expires_at INTO x_thread;
        -- An archived thread can't be written to.
        PERFORM __schema__.queue_gc(p_tenant, p_thread, p_ttl + 60);
    END IF;
    x_now := clock_timestamp();

    IF x_thread.lease_expires_at > x_now THEN
        IF x_thread.lease_holder = p_holder THEN
            o_token := x_thread.lease_token;
        ELSE
            o_remaining := date_part('epoch', x_thread.lease_expires_at - x_now);
        END IF;
    ELSE
        SELECT w.ticket INTO x_ticket
        FROM __schema__.lease_waiters AS w
        WHERE w.thread = p_thread AND w.holder = p_holder;
        IF NOT EXISTS (
            SELECT FROM __schema__.lease_waiters AS w
            WHERE w.thread = p_thread AND w.holder <> p_holder AND w.seen_at > x_now - interval '5 seconds'
                AND (x_ticket IS NULL OR w.ticket < x_ticket)
        ) THEN
            o_token := greatest(
                x_thread.lease_token + 1, x_thread.floor + 1, (date_part('epoch', x_now) * 1000000)::bigint
            );
        END IF;
    END IF;

    IF o_token IS NOT NULL THEN
        o_remaining := p_ttl;
        UPDATE __schema__.threads AS t SET
            lease_holder = p_holder, lease_token = o_token, lease_expires_at = x_now + make_interval(secs => p_ttl)
        WHERE t.thread = p_thread;
        DELETE FROM __schema__.lease_waiters AS w WHERE w.thread = p_thread AND w.holder = p_holder;
    ELSIF p_waits THEN
        INSERT INTO __schema__.lease_waiters AS w (thread, holder, tenant, ticket, seen_at)
        SELECT
            p_thread, p_holder, p_tenant,
            greatest(max(w.ticket) + 1, (date_part('epoch', x_now) * 1000000)::bigint), x_now
        FROM __schema__.lease_waiters AS w
        WHERE w.thread = p_thread
        ON CONFLICT (thread, holder) DO UPDATE SET seen_at = excluded.seen_at;
        PERFORM __schema__.queue_gc(p_tenant, p_thread, 120);
    END IF;
END
$$;

-- Records that a holder still waits. Returns whether it is first in the queue, and whether the lease is free. No row: it isn't
-- queued.
CREATE FUNCTION __schema__.await_lease(p_tenant text, p_thread uuid, p_holder bytea)
RETURNS TABLE (is_first boolean, is_free boolean) LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_now timestamptz := clock_timestamp();
BEGIN
    UPDATE __schema__.lease_waiters AS w SET seen_at = x_now
    WHERE w.thread = p_thread AND w.holder = p_holder AND w.seen_at < x_now - interval '1 second';
    RETURN QUERY
    SELECT
        NOT EXISTS (
            SELECT FROM __schema__.lease_waiters AS w
            WHERE w.thread = p_thread AND w.ticket < own.ticket AND w.seen_at > x_now - interval '5 seconds'
        ),
        NOT EXISTS (SELECT FROM __schema__.threads AS t WHERE t.thread = p_thread AND t.lease_expires_at > x_now)
    FROM __schema__.lease_waiters AS own
    WHERE own.thread = p_thread AND own.holder = p_holder;
END
$$;

-- Renews the lease with the token p_token for p_ttl seconds from now, if it is in force. Returns whether it was.
CREATE FUNCTION __schema__.renew_lease(p_tenant text, p_thread uuid, p_token bigint, p_ttl float8) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
BEGIN
    UPDATE __schema__.threads AS t SET
        updated_at = clock_timestamp(), lease_expires_at = clock_timestamp() + make_interval(secs => p_ttl)
    WHERE t.thread = p_thread AND t.lease_token = p_token AND t.lease_expires_at > clock_timestamp();
    RETURN FOUND;
END
$$;

-- Ends the lease of a holder, even an expired one, and removes it from the queue. Returns whether the lease was in force.
CREATE FUNCTION __schema__.release_lease(p_tenant text, p_thread uuid, p_holder bytea) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_thread record;
BEGIN
    UPDATE __schema__.threads AS t SET updated_at = clock_timestamp() WHERE t.thread = p_thread
    RETURNING t.lease_holder, t.lease_expires_at INTO x_thread;
    DELETE FROM __schema__.lease_waiters AS w WHERE w.thread = p_thread AND w.holder = p_holder;
    IF x_thread.lease_holder = p_holder THEN
        UPDATE __schema__.threads AS t SET lease_holder = NULL, lease_expires_at = NULL WHERE t.thread = p_thread;
        RETURN coalesce(x_thread.lease_expires_at > clock_timestamp(), false);
    END IF;
    RETURN false;
END
$$;

-- Returns the lease in force, if any, and how many wait for it. Always one row.
CREATE FUNCTION __schema__.get_lease(
    p_tenant text, p_thread uuid, OUT o_token bigint, OUT o_remaining float8, OUT o_waiting integer
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_now timestamptz := clock_timestamp();
BEGIN
    SELECT t.lease_token, date_part('epoch', t.lease_expires_at - x_now) INTO o_token, o_remaining
    FROM __schema__.threads AS t
    WHERE t.thread = p_thread AND t.lease_expires_at > x_now;
    SELECT count(*) INTO o_waiting
    FROM __schema__.lease_waiters AS w
    WHERE w.thread = p_thread AND w.seen_at > x_now - interval '5 seconds';
END
$$;

-- Uploads, and garbage collection.

-- Queues a thread for garbage collection after this many seconds.
CREATE FUNCTION __schema__.queue_gc(p_tenant text, p_thread uuid, p_seconds float8) RETURNS void
LANGUAGE sql VOLATILE AS $$
    INSERT INTO __schema__.gc_queue AS q (thread, tenant, due_at)
    VALUES ($2, $1, clock_timestamp() + make_interval(secs => $3))
    ON CONFLICT (thread) DO UPDATE SET due_at = excluded.due_at WHERE q.due_at > excluded.due_at
$$;

-- Stores a part of an upload. An existing part isn't changed, nor an upload that a value has named.
CREATE FUNCTION __schema__.put_part(
    p_tenant text, p_thread uuid, p_thread_id text, p_upload_id bytea, p_offset bigint, p_data bytea, p_grace float8
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
BEGIN
    UPDATE __schema__.threads AS t SET updated_at = clock_timestamp() WHERE t.thread = p_thread;
    IF NOT FOUND THEN
        INSERT INTO __schema__.threads AS t (thread, tenant, thread_id) VALUES (p_thread, p_tenant, p_thread_id)
        ON CONFLICT (thread) DO UPDATE SET updated_at = clock_timestamp();
    END IF;
    UPDATE __schema__.uploads AS u SET updated_at = clock_timestamp()
    WHERE u.thread = p_thread AND u.upload_id = p_upload_id;
    IF NOT FOUND THEN
        IF EXISTS (SELECT FROM __schema__.value_parts AS p WHERE p.thread = p_thread AND p.upload_id = p_upload_id) THEN
            RETURN;
        END IF;
        INSERT INTO __schema__.uploads AS u (thread, upload_id, tenant, updated_at)
        VALUES (p_thread, p_upload_id, p_tenant, clock_timestamp());
        PERFORM __schema__.queue_gc(p_tenant, p_thread, p_grace);
    END IF;
    INSERT INTO __schema__.value_parts AS p (thread, upload_id, part_offset, tenant, data)
    VALUES (p_thread, p_upload_id, p_offset, p_tenant, p_data)
    ON CONFLICT (thread, upload_id, part_offset) DO NOTHING;
END
$$;

-- Collects a thread's garbage: deletes uploads that nothing has named for p_grace seconds, waiters that are gone, and the row of
-- an empty thread whose floor is older than p_tombstone seconds: by then the clock alone makes greater versions. Returns in how
-- many seconds to check again. Null: never.
CREATE FUNCTION __schema__.collect_thread(p_tenant text, p_thread uuid, p_grace float8, p_tombstone float8) RETURNS float8
LANGUAGE plpgsql AS $$
DECLARE
    x_setting text := set_config('checkpointd.tenant', p_tenant, true);
    x_thread record;
    x_now timestamptz;
    x_again float8;
    x_upload record;
BEGIN
    UPDATE __schema__.threads AS t SET updated_at = t.updated_at WHERE t.thread = p_thread
    RETURNING greatest(t.floor, t.lease_token) AS floor, t.lease_expires_at INTO x_thread;
    IF NOT FOUND THEN
        DELETE FROM __schema__.gc_queue AS q WHERE q.thread = p_thread;
        RETURN NULL;
    END IF;
    x_now := clock_timestamp();

    FOR x_upload IN
        DELETE FROM __schema__.uploads AS u
        WHERE u.thread = p_thread AND u.updated_at <= x_now - make_interval(secs => p_grace)
        RETURNING u.upload_id
    LOOP
        DELETE FROM __schema__.value_parts AS p WHERE p.thread = p_thread AND p.upload_id = x_upload.upload_id;
    END LOOP;
    SELECT date_part('epoch', min(u.updated_at) - x_now) + p_grace INTO x_again
    FROM __schema__.uploads AS u
    WHERE u.thread = p_thread;

    DELETE FROM __schema__.lease_waiters AS w WHERE w.thread = p_thread AND w.seen_at < x_now - interval '1 minute';
    IF EXISTS (SELECT FROM __schema__.lease_waiters AS w WHERE w.thread = p_thread) THEN
        x_again := least(x_again, 60);
    END IF;

    IF x_again IS NULL
        AND NOT EXISTS (SELECT FROM __schema__.namespaces AS n WHERE n.thread = p_thread)
        AND NOT EXISTS (SELECT FROM __schema__.task_writes AS w WHERE w.thread = p_thread)
    THEN
        IF x_thread.lease_expires_at > x_now THEN
            x_again := date_part('epoch', x_thread.lease_expires_at - x_now) + p_tombstone;
        ELSE
            x_again := x_thread.floor / 1000000.0 + p_tombstone - date_part('epoch', x_now);
            IF x_again <= 0 THEN
                DELETE FROM __schema__.threads AS t WHERE t.thread = p_thread;
                x_again := NULL;
            END IF;
        END IF;
    END IF;

    IF x_again IS NULL THEN
        DELETE FROM __schema__.gc_queue AS q WHERE q.thread = p_thread;
    ELSE
        x_again := greatest(x_again, 1);
        UPDATE __schema__.gc_queue AS q SET due_at = x_now + make_interval(secs => x_again) WHERE q.thread = p_thread;
    END IF;
    RETURN x_again;
END
$$;

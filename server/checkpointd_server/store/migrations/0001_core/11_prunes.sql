-- Removing history.

-- Returns the least id among a checkpoint and its ancestors, up to the nearest stored values of channels.
CREATE FUNCTION __schema__.lowest_ancestor(p_thread uuid, p_ns text, p_checkpoint_id text, p_channels text[]) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    x_lowest text COLLATE "C" := p_checkpoint_id;
    x_remaining text[] := p_channels;
    x_next text;
    x_mark text;
    x_steps bigint := 0;
    x_ancestor record;
BEGIN
    SELECT c.parent_checkpoint_id INTO x_next
    FROM __schema__.checkpoints AS c
    WHERE c.thread = p_thread AND c.checkpoint_ns = p_ns AND c.checkpoint_id = p_checkpoint_id;
    WHILE x_next IS NOT NULL AND cardinality(x_remaining) > 0 LOOP
        SELECT c.checkpoint_id, c.parent_checkpoint_id, c.channels, c.channel_versions INTO x_ancestor
        FROM __schema__.checkpoints AS c
        WHERE c.thread = p_thread AND c.checkpoint_ns = p_ns AND c.checkpoint_id = x_next;
        -- As in get_delta_history: parents may form a cycle.
        EXIT WHEN NOT FOUND OR x_next = x_mark;
        IF x_steps & (x_steps - 1) = 0 THEN
            x_mark := x_next;
        END IF;
        x_steps := x_steps + 1;
        x_lowest := least(x_lowest, x_next);
        x_remaining := __schema__.without(x_remaining, (
            SELECT s.o_channels
            FROM __schema__.stored_at(
                p_thread, p_ns, x_ancestor.channels, x_ancestor.channel_versions, x_remaining
            ) AS s
        ));
        x_next := x_ancestor.parent_checkpoint_id;
    END LOOP;
    RETURN x_lowest;
END
$$;

-- Returns the channels of a checkpoint whose value must be rebuilt from its ancestors.
--
-- LangGraph counts the updates of such delta channels in the metadata. Its loop always does; manual updates, copies and inputs
-- didn't up to 1.2.11, and LangGraph.js marks threads by delta_writes_versioned. For those, and if the metadata index has nothing
-- of LangGraph's (it may be withheld), this takes channels that are empty here and were written to. A channel that is counted
-- and has no version may have been written to by an old LangGraph.js.
CREATE FUNCTION __schema__.delta_channels_at(p_thread uuid, p_ns text, p_checkpoint_id text) RETURNS text[]
LANGUAGE sql STABLE AS $$
    SELECT ARRAY (
        SELECT part.channel
        FROM (
            SELECT versioned.channel, versioned.version, c.counters ? versioned.channel AS is_counted
            FROM unnest(c.channels, c.channel_versions) AS versioned (channel, version)
            UNION ALL
            SELECT counted.channel, NULL, false
            FROM jsonb_object_keys(c.counters) AS counted (channel)
            WHERE counted.channel <> ALL (c.channels)
        ) AS part
        WHERE (
            part.is_counted
            OR (part.version IS NULL OR NOT c.is_loops OR c.metadata_index ? 'delta_writes_versioned')
            AND part.channel NOT LIKE 'branch:%' AND part.channel NOT LIKE '\_\_%' AND EXISTS (
                SELECT FROM __schema__.task_writes AS w
                WHERE w.thread = $1 AND w.checkpoint_ns = $2 AND w.channel = part.channel AND w.checkpoint_id < $3
            )
        )
        AND NOT EXISTS (
            SELECT FROM __schema__.channel_values AS v
            WHERE v.thread = $1 AND v.checkpoint_ns = $2 AND v.channel = part.channel AND v.version = part.version
        )
    )
    FROM (
        SELECT
            c.channels, c.channel_versions, c.metadata_index,
            coalesce(c.metadata_index ->> 'source' = 'loop', false)
                OR c.metadata_index ? 'counters_since_delta_snapshot' AS is_loops,
            CASE jsonb_typeof(c.metadata_index -> 'counters_since_delta_snapshot')
                WHEN 'object' THEN c.metadata_index -> 'counters_since_delta_snapshot'
                ELSE '{}'
            END AS counters
        FROM __schema__.checkpoints AS c
        WHERE c.thread = $1 AND c.checkpoint_ns = $2 AND c.checkpoint_id = $3
    ) AS c
$$;

-- Returns the newest checkpoint of each namespace of a thread; its parent, and whether the parent has sends among its task writes,
-- which up to format 3 are the newest's pending sends (the server doesn't read the format); whether it belongs to an existing
-- root checkpoint that isn't the newest; and the channels whose value must be rebuilt from its ancestors.
CREATE FUNCTION __schema__.newest_of_namespaces(p_thread uuid)
RETURNS TABLE (
    o_ns text, o_checkpoint_id text, o_parent text, o_has_sends boolean, o_is_finished boolean, o_delta_channels text[]
) LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
    SELECT
        newest.checkpoint_ns::text, newest.checkpoint_id::text, newest.parent_checkpoint_id::text,
        EXISTS (
            SELECT FROM __schema__.task_writes AS w
            WHERE w.thread = p_thread AND w.checkpoint_ns = newest.checkpoint_ns
                AND w.checkpoint_id = newest.parent_checkpoint_id AND w.channel = '__pregel_tasks'
        ),
        -- The namespace of a call ends in a colon and its task's id; that of a subgraph with its own memory
        -- (checkpointer=True) doesn't. Runs save in the background, so a call may be stored before the root checkpoint that it
        -- belongs to: such a call is kept.
        position(':' IN newest.checkpoint_ns) > 0 AND EXISTS (
            SELECT FROM __schema__.checkpoints AS r
            WHERE r.thread = p_thread AND r.checkpoint_ns = '' AND r.checkpoint_id = newest.root_id
        ) AND newest.root_id IS DISTINCT FROM (
            SELECT max(r.checkpoint_id) FROM __schema__.checkpoints AS r WHERE r.thread = p_thread AND r.checkpoint_ns = ''
        ),
        __schema__.delta_channels_at(p_thread, newest.checkpoint_ns, newest.checkpoint_id)
    FROM (
        SELECT
            latest.*, latest.metadata_index -> 'parents' ->> '' AS root_id
        FROM __schema__.namespaces AS n
        CROSS JOIN LATERAL (
            SELECT c.*
            FROM __schema__.checkpoints AS c
            WHERE c.thread = p_thread AND c.checkpoint_ns = n.checkpoint_ns
            ORDER BY c.checkpoint_id DESC
            LIMIT 1
        ) AS latest
        WHERE n.thread = p_thread
    ) AS newest;
END
$$;

-- Keeps the newest checkpoint of each namespace of a thread with its writes, and what it needs from its ancestors, and returns how
-- many checkpoints were deleted. Everything from the least needed id on is kept, including siblings of ancestors: so one id
-- describes what remains. The namespace records it, and puts are checked against it.
CREATE FUNCTION __schema__.prune_thread(
    p_tenant text, p_thread uuid, p_lease bigint, OUT o_outcome text, OUT o_remaining float8, OUT o_checkpoints bigint
) LANGUAGE plpgsql AS $$
DECLARE
    x_is_there boolean;
    x_newest record;
    x_floor text COLLATE "C";
    x_ids text[];
BEGIN
    SELECT l.* INTO o_outcome, o_remaining, x_is_there
    FROM __schema__.lock_thread(p_tenant, p_thread, p_lease) AS l;
    o_checkpoints := 0;
    IF o_outcome <> 'ok' OR NOT x_is_there THEN
        RETURN;
    END IF;
    FOR x_newest IN SELECT n.* FROM __schema__.newest_of_namespaces(p_thread) AS n LOOP
        IF x_newest.o_is_finished THEN
            o_checkpoints := o_checkpoints + __schema__.delete_namespaces(p_thread, ARRAY[x_newest.o_ns]);
            CONTINUE;
        END IF;
        x_floor := x_newest.o_checkpoint_id;
        IF cardinality(x_newest.o_delta_channels) > 0 THEN
            x_floor := __schema__.lowest_ancestor(p_thread, x_newest.o_ns, x_floor, x_newest.o_delta_channels);
        END IF;
        IF x_newest.o_has_sends THEN
            x_floor := least(x_floor, x_newest.o_parent);
        END IF;
        SELECT coalesce(array_agg(c.checkpoint_id), '{}') INTO x_ids
        FROM __schema__.checkpoints AS c
        WHERE c.thread = p_thread AND c.checkpoint_ns = x_newest.o_ns AND c.checkpoint_id < x_floor;
        IF cardinality(x_ids) > 0 THEN
            o_checkpoints := o_checkpoints + cardinality(x_ids);
            PERFORM __schema__.delete_checkpoints(p_thread, x_newest.o_ns, x_ids);
            PERFORM __schema__.free_values(p_thread, x_newest.o_ns);
            -- A run in progress whose last put was deleted must not build on it. All others continue undisturbed.
            UPDATE __schema__.namespaces AS n SET
                pruned_below = x_floor,
                last_writer = CASE WHEN n.last_checkpoint_id >= x_floor THEN n.last_writer END
            WHERE n.thread = p_thread AND n.checkpoint_ns = x_newest.o_ns;
        END IF;
        -- References to parents below the id are cleared, but not for encrypted metadata, which is bound to its parent's id.
        UPDATE __schema__.checkpoints AS c SET parent_checkpoint_id = NULL
        WHERE c.thread = p_thread AND c.checkpoint_ns = x_newest.o_ns AND c.parent_checkpoint_id < x_floor
            AND c.metadata_type NOT LIKE '%+%';
    END LOOP;
    IF o_checkpoints > 0 THEN
        PERFORM __schema__.refresh_thread(p_tenant, p_thread);
    END IF;
END
$$;

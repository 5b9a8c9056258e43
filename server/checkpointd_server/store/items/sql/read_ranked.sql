-- Ranks items and reads them, but for the first $2: their scores, how many were ranked, and the columns of get_items, which are null
-- in a single row if no item was read.
--
--   $3, $4  p_refreshes, for all items, and p_max_bytes of get_items.
--   $1, and those from $5 on  The parameters of the ranking.
SELECT r.scores[$2 + g.o_position] AS o_score, coalesce(cardinality(r.keys), 0) AS o_ranked, g.*
FROM (
    SELECT array_agg(n.o_namespace) AS namespaces, array_agg(n.o_key) AS keys, array_agg(n.o_score) AS scores
    FROM __ranking__ AS n
) AS r
LEFT JOIN LATERAL __schema__.get_items(
    $1, r.namespaces[$2 + 1 :], r.keys[$2 + 1 :],
    array_fill($3::boolean, ARRAY[greatest(cardinality(r.keys) - $2, 0)]), $4
) AS g ON true

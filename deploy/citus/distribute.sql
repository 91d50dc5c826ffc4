-- Distributes the tables of tenants over the nodes of a Citus cluster, each tenant's rows in all of them to the same node. Run
-- it as their owner on the coordinator, after `rapport migrate`; again after one that made new tables. Tables that are
-- distributed already are left alone, and what is in the others is moved.
SELECT create_distributed_table(pg_class.oid::regclass, 'tenant')
FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attname = 'tenant'
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
    AND pg_class.oid NOT IN (SELECT logicalrelid FROM pg_dist_partition)
ORDER BY relname;

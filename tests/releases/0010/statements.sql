-- What the programs of the schema 0010 send to their database, and people with them. Frozen: programs of a release must
-- go on working after the next one's migration, so this file is never changed to please a migration.

-- Controller: takes the lease.
SELECT name, epoch, holder, host, renewals, renewed_at FROM leases WHERE name = 'controller';
INSERT INTO leases (name, epoch, holder, host, renewals, renewed_at) VALUES ('controller', 1, 'me', 'here', 0, 100.0);
UPDATE leases SET renewals = renewals + 1, renewed_at = 101.0 WHERE name = 'controller';
SELECT epoch, holder FROM leases WHERE name = 'controller';

-- API and people: declare services.
INSERT INTO services (id, name, recipe_name, config, replicas) VALUES ('one', 'chat', 'inference/vllm', '{"a": 1}', 2);
INSERT INTO user_events (service_id, action, message, at) VALUES ('one', 'Created', 'created', 100.0);
INSERT INTO services (id, recipe_name) VALUES ('two', 'simple/hello');
SELECT id, name, recipe_name, replicas, desired_state, generation, version, deletion_requested_at, purge FROM services
ORDER BY id;
SELECT id FROM services WHERE change_seq > 0 ORDER BY change_seq;

-- Controller: resolves, opens attempts, notes what it sees.
INSERT INTO service_status (service_id, observed_generation, wanted_replicas, ready_replicas, conditions, spec, digest,
                            updated_at) VALUES ('one', 1, 2, 0, '[]', '{}', 'd1', 101.0);
INSERT INTO attempts (token, service_id, replica, incarnation, lane, generation, digest, failures, intent_at, message,
                      gpus, door, faults)
VALUES ('af-x-one-0-1', 'one', 0, 1, 'main', 1, 'd1', 2, 102.0, '', 4, 'k1', 1);
INSERT INTO attempts (token, service_id, replica, incarnation, lane, beside, generation, digest, failures, intent_at,
                      message, gpus)
VALUES ('af-x-one-0-2', 'one', 0, 2, 'b', 'HandOver', 1, 'd1', 0, 102.5, '', 4);
INSERT INTO attempts (token, service_id, replica, incarnation, lane, generation, digest, failures, intent_at, job_id,
                      submitted_at, absent_since, claimed_at, started_at, node, host, launched_at, port, serving_at,
                      ready_at, unready_since, ends_at, closed_at, outcome, message, exit_code, gone_at)
VALUES ('af-x-one-1-1', 'one', 1, 1, 'main', 1, 'd1', 0, 102.0, 8, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        NULL, NULL, NULL, NULL, NULL, '', NULL, NULL);
UPDATE attempts SET job_id = 7, submitted_at = 103.0 WHERE token = 'af-x-one-0-1' AND job_id IS NULL;
UPDATE attempts SET claimed_at = 104.0, started_at = 104.0, node = 'n1', host = '10.0.0.1', launched_at = 104.5,
                    port = 8000, serving_at = 105.0, ready_at = 106.0, ends_at = 900.0 WHERE token = 'af-x-one-0-1';
INSERT INTO endpoints (token, service_id, replica, models, host, port, door, state)
VALUES ('af-x-one-0-1', 'one', 0, '["chat"]', '10.0.0.1', 8000, 'k1', 'ready');
UPDATE endpoints SET state = 'unready' WHERE token = 'af-x-one-0-1';
UPDATE endpoints SET state = 'ready', host = '10.0.0.2' WHERE token = 'af-x-one-0-1';
UPDATE service_status SET target = 2, ready_replicas = 1, conditions = '[{"type": "Ready"}]', updated_at = 106.0
WHERE service_id = 'one';
INSERT INTO events (service_id, type, reason, message, count, first_at, last_at)
VALUES ('one', 'Normal', 'Ready', 'it is ready', 1, 106.0, 106.0);
UPDATE events SET count = count + 1, last_at = 107.0
WHERE id = (SELECT max(id) FROM events WHERE service_id = 'one') AND reason = 'Ready';
SELECT token, lane, beside, job_id, port, ready_at, closed_at, gone_at, gpus, door, failures,
       faults FROM attempts
WHERE gone_at IS NULL ORDER BY token;
UPDATE attempts SET draining_since = 107.0 WHERE token = 'af-x-one-0-1';
SELECT token, draining_since FROM attempts WHERE draining_since IS NOT NULL;
SELECT target FROM service_status WHERE service_id = 'one';
SELECT token, host, port, door, state FROM endpoints WHERE service_id = 'one';

-- API and people: change, stop, delete.
UPDATE services SET replicas = 1 WHERE id = 'one' AND version = 1 AND deletion_requested_at IS NULL;
UPDATE services SET config = '{"a": 2}' WHERE name = 'chat';
UPDATE services SET desired_state = 'stopped' WHERE id = 'two';
UPDATE services SET owner = 'alice', project = 'p', access = 'project' WHERE id = 'two' AND deletion_requested_at IS NULL;
SELECT id FROM services WHERE owner = 'alice' OR access = 'everyone' OR project = 'q';
DELETE FROM services WHERE name = 'chat';
SELECT id, replicas, desired_state, generation, version, deletion_requested_at IS NOT NULL FROM services ORDER BY id;
SELECT name, status, replicas, ready, generation, observed_generation, endpoint FROM service_overview ORDER BY name;
SELECT token, outcome FROM attempt_history ORDER BY token;

-- Controller: closes, sees it gone.
UPDATE attempts SET closed_at = 108.0, outcome = 'Superseded' WHERE token = 'af-x-one-1-1';
UPDATE attempts SET closed_at = 108.0, outcome = 'Failed', message = 'why', exit_code = 1 WHERE token = 'af-x-one-0-1';
UPDATE attempts SET closed_at = 108.0, outcome = 'Superseded' WHERE token = 'af-x-one-0-2';
UPDATE attempts SET gone_at = 109.0 WHERE service_id = 'one';
DELETE FROM endpoints WHERE token = 'af-x-one-0-1';
SELECT service_id, count(*) FROM attempts WHERE gone_at IS NULL GROUP BY service_id;

-- API: asked twice, and watching.
INSERT INTO idempotency_keys (key, fingerprint, service_id, answer, at) VALUES ('k', 'f', 'two', '{}', 100.0);
SELECT fingerprint, answer FROM idempotency_keys WHERE key = 'k' AND at > 50.0;
DELETE FROM idempotency_keys WHERE at < 200.0;
SELECT feed.seq, (SELECT max(seq) FROM service_changes WHERE service_id = '') FROM feed;
SELECT services.id, service_changes.seq FROM services JOIN service_changes ON service_changes.service_id = services.id
WHERE service_changes.seq > 0 ORDER BY service_changes.seq;

-- API: keys of those who use it.
INSERT INTO api_keys (id, name, owner, digest, start, scopes, models, created_at, expires_at, revoked_at)
VALUES ('k1', 'laptop', 'alice', '0123456789012345678901234567890123456789012345678901234567890123', 'aif_a',
        '["infer"]', '["chat"]', 100.0, 900.0, NULL);
SELECT count(*), max(change_seq) > 0 FROM api_keys;
UPDATE api_keys SET project = 'p', recipes = '["inference/vllm"]' WHERE id = 'k1';
SELECT id, owner, project, recipes FROM api_keys;
UPDATE api_keys SET revoked_at = 200.0 WHERE id = 'k1' AND coalesce(revoked_at, 201.0) > 200.0;
SELECT id, digest, scopes, models, expires_at, revoked_at FROM api_keys ORDER BY created_at, id;
DELETE FROM api_keys WHERE id = 'k1';

-- What is removed for good.
DELETE FROM events WHERE last_at < 200.0;
DELETE FROM attempts WHERE service_id = 'one';
UPDATE services SET purge = 1 WHERE id = 'one';
DELETE FROM services WHERE id = 'one';
SELECT count(*) FROM services WHERE id = 'one';
SELECT (SELECT count(*) FROM user_events) + (SELECT count(*) FROM service_status WHERE service_id = 'one');
UPDATE leases SET holder = NULL WHERE name = 'controller';

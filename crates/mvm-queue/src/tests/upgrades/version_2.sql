PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE jobs (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        spec TEXT NOT NULL,
        spec_digest TEXT NOT NULL,
        kind TEXT NOT NULL,
        labels TEXT NOT NULL,
        lane INTEGER,
        priority INTEGER NOT NULL,
        run_after_ms INTEGER,
        attempts_max INTEGER NOT NULL,
        losses_max INTEGER NOT NULL,
        backoff TEXT NOT NULL,
        timeout_ms INTEGER,
        concurrency_key TEXT,
        concurrency_limit INTEGER,
        on_dependency_failure TEXT NOT NULL,
        dependencies_open INTEGER NOT NULL,
        idempotency_key TEXT UNIQUE,
        schedule TEXT,
        submitted_on INTEGER NOT NULL,
        created_at_ms INTEGER NOT NULL,
        updated_at_ms INTEGER NOT NULL,
        finished_at_ms INTEGER,
        state TEXT NOT NULL,
        waits_for TEXT,
        claimed_by TEXT,
        claimed_on INTEGER,
        token INTEGER NOT NULL,
        failures INTEGER NOT NULL,
        losses INTEGER NOT NULL,
        renewals INTEGER NOT NULL,
        cancel_requested INTEGER NOT NULL,
        error TEXT,
        result TEXT
    ) STRICT;
INSERT INTO jobs VALUES(1,'held','{"kind":"k","payload":{"number":1}}','212fe42cce0bd55ea1ce3f29b9e7ef55a1e5889419e6d8b7d80fc7fc2f1c71d0','k','[]',1,0,NULL,1,3,'{"base_ms":1000,"max_ms":300000}',NULL,NULL,NULL,'cancel',0,NULL,NULL,1,100,100,NULL,'in_progress',NULL,'w',1,1,0,0,0,0,NULL,NULL);
INSERT INTO jobs VALUES(2,'later','{"kind":"k","payload":{"number":1},"run_after_ms":50}','e39fabfbed87b33552978f5a701225d3d3fdbd551116f975025b58df1e62f8b3','k','[]',1,0,50,1,3,'{"base_ms":1000,"max_ms":300000}',NULL,NULL,NULL,'cancel',0,NULL,NULL,1,100,100,NULL,'pending','run_after',NULL,NULL,0,0,0,0,0,NULL,NULL);
INSERT INTO jobs VALUES(3,'flow','{"kind":"flow","payload":{"number":1}}','c6513d1581c3892959561805ec0a08abdf94ae33ea411652d7cedaecf7a4d20b','flow','[]',2,0,NULL,1,3,'{"base_ms":1000,"max_ms":300000}',NULL,NULL,NULL,'cancel',0,NULL,NULL,1,100,100,NULL,'pending','worker',NULL,NULL,0,0,0,0,0,NULL,NULL);
INSERT INTO jobs VALUES(4,'waits','{"kind":"k","payload":{"number":1},"concurrency":{"key":"c","limit":1},"dependencies":["held"]}','0694b87044f0d025c9b7d13d66d08699616aadc856629db1d669908a82cb7480','k','[]',1,0,NULL,1,3,'{"base_ms":1000,"max_ms":300000}',NULL,'c',1,'cancel',1,NULL,NULL,1,100,100,NULL,'pending','dependencies',NULL,NULL,0,0,0,0,0,NULL,NULL);
INSERT INTO jobs VALUES(5,'gone','{"kind":"k","payload":{"number":1},"priority":-1}','633aba86fa57cd332791c22df48140a99362a06519d47692f4fd9139a39ee81e','k','[]',1,-1,NULL,1,3,'{"base_ms":1000,"max_ms":300000}',NULL,NULL,NULL,'cancel',0,NULL,NULL,1,100,100,100,'cancelled',NULL,NULL,NULL,0,0,0,0,0,NULL,NULL);
CREATE TABLE lanes (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        labels TEXT NOT NULL,
        ready INTEGER NOT NULL,
        unfinished INTEGER NOT NULL,
        UNIQUE (kind, labels)
    ) STRICT;
INSERT INTO lanes VALUES(1,'k','[]',0,3);
INSERT INTO lanes VALUES(2,'flow','[]',1,1);
CREATE TABLE keys (
        key TEXT PRIMARY KEY,
        maximum INTEGER NOT NULL,
        held INTEGER NOT NULL,
        unfinished INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
INSERT INTO keys VALUES('c',1,0,1);
CREATE TABLE state_counts (state TEXT PRIMARY KEY, number INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO state_counts VALUES('cancelled',1);
INSERT INTO state_counts VALUES('claimed',0);
INSERT INTO state_counts VALUES('completed',0);
INSERT INTO state_counts VALUES('dead',0);
INSERT INTO state_counts VALUES('failed',0);
INSERT INTO state_counts VALUES('in_progress',1);
INSERT INTO state_counts VALUES('pending',3);
CREATE TABLE dependencies (
        on_seq INTEGER NOT NULL,
        waiting INTEGER NOT NULL,
        PRIMARY KEY (on_seq, waiting)
    ) STRICT, WITHOUT ROWID;
INSERT INTO dependencies VALUES(1,4);
CREATE TABLE settling (on_seq INTEGER PRIMARY KEY) STRICT;
CREATE TABLE attempts (
        job_seq INTEGER NOT NULL,
        token INTEGER NOT NULL,
        worker TEXT NOT NULL,
        node INTEGER NOT NULL,
        claimed_at_ms INTEGER NOT NULL,
        started_at_ms INTEGER,
        ended_at_ms INTEGER,
        outcome TEXT,
        error TEXT,
        log_next INTEGER NOT NULL,
        log_bytes INTEGER NOT NULL,
        log_dropped_bytes INTEGER NOT NULL,
        PRIMARY KEY (job_seq, token)
    ) STRICT, WITHOUT ROWID;
INSERT INTO attempts VALUES(1,1,'w',1,100,100,NULL,NULL,NULL,1,3,0);
CREATE TABLE logs (
        seq INTEGER PRIMARY KEY,
        job_seq INTEGER NOT NULL,
        token INTEGER NOT NULL,
        number INTEGER NOT NULL,
        stream TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        bytes BLOB NOT NULL,
        UNIQUE (job_seq, token, number)
    ) STRICT;
INSERT INTO logs VALUES(1,1,1,0,'stdout',100,X'6c6f67');
CREATE TABLE schedules (
        name TEXT PRIMARY KEY,
        revision INTEGER NOT NULL,
        cron TEXT NOT NULL,
        missed TEXT NOT NULL,
        spec TEXT NOT NULL,
        next_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
INSERT INTO schedules VALUES('s',10,'* * * * *','once','{"kind":"k","payload":null}',60000);
CREATE TABLE requests (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        digest TEXT NOT NULL,
        verdict TEXT NOT NULL,
        job TEXT,
        before TEXT,
        state TEXT,
        waits_for TEXT,
        number INTEGER,
        flag INTEGER,
        detail TEXT,
        step INTEGER,
        picked INTEGER,
        claims TEXT
    ) STRICT;
INSERT INTO requests VALUES(1,'r0','d7e5eb3a683dd3893d93a0bc0d9e4bd74bed41520de1d05581be200b44eb0fab','submitted','held',NULL,'pending','worker',NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO requests VALUES(2,'r1','fa56e9bb786fe01893d199d43d2d3001871e8877619e863eafbb22fefe295c1a','claimed',NULL,NULL,NULL,NULL,0,NULL,NULL,1,1,'[[1,1]]');
INSERT INTO requests VALUES(3,'r2','dd54eff07c8871ffb0729230c68c9d2191b3ca1f0bc8a73a67292827a85981a6','started','held','claimed',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO requests VALUES(4,'r3','37f9e5fe347d29f25b05bccd25754fa7932364b1458eed30c7d8a9ee6d8908f9','logged','held','in_progress',NULL,NULL,1,0,NULL,NULL,NULL,NULL);
INSERT INTO requests VALUES(5,'r4','a88e0ada3f65587f779028afcba42cde75e26886f7d0dc6bc84e9162f3f52d74','submitted','later',NULL,'pending','run_after',NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO requests VALUES(6,'r5','29e52dc2958fa195c21e8cd482dc489f5790d5dbc3224acce909ac963a4122ab','submitted','flow',NULL,'pending','worker',NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO requests VALUES(7,'r6','025d11aeaad8971828f196b5ecd69045e018df8fa126ffecfce790e9d1577376','submitted','waits',NULL,'pending','dependencies',NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO requests VALUES(8,'r7','4be1f505321b6b677668e57f53e1d154d296c160f6b698d391eb69ad74fabaec','submitted','gone',NULL,'pending','worker',NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO requests VALUES(9,'r8','441aab9ae1fe0badb4873d9f4d47c5979fc9fbc382fa55dd5f00342a9c2095b0','cancelled','gone','pending','cancelled',NULL,NULL,0,NULL,NULL,NULL,NULL);
INSERT INTO requests VALUES(10,'r9','c309c83a8f65a86714e03bcfb96117c4c6b1ca8eb6816478ca4155c110dc8e59','schedule_set',NULL,NULL,NULL,NULL,10,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE barriers (
        node INTEGER PRIMARY KEY,
        mark INTEGER NOT NULL
    ) STRICT;
DELETE FROM sqlite_sequence;
INSERT INTO sqlite_sequence VALUES('jobs',5);
CREATE VIEW schema_version_2 AS SELECT 2 AS version;
CREATE INDEX jobs_by_state ON jobs (state, seq);
CREATE INDEX jobs_ready ON jobs (lane, priority DESC, seq) WHERE waits_for = 'worker';
CREATE INDEX jobs_ready_own ON jobs (lane, submitted_on, priority DESC, seq) WHERE waits_for = 'worker';
CREATE INDEX jobs_of_key ON jobs (concurrency_key, lane, priority DESC, seq)
        WHERE concurrency_key IS NOT NULL AND waits_for IN ('concurrency', 'worker');
CREATE INDEX jobs_admitted ON jobs (concurrency_key)
        WHERE concurrency_key IS NOT NULL AND waits_for = 'worker';
CREATE INDEX jobs_resting ON jobs (seq) WHERE waits_for = 'backoff';
CREATE INDEX jobs_run_after ON jobs (run_after_ms, seq) WHERE waits_for = 'run_after';
CREATE INDEX jobs_finished ON jobs (finished_at_ms, seq) WHERE finished_at_ms IS NOT NULL;
CREATE INDEX lanes_ready ON lanes (id) WHERE ready > 0;
CREATE INDEX dependencies_of ON dependencies (waiting);
CREATE TRIGGER requests_forget AFTER INSERT ON requests BEGIN
                DELETE FROM requests WHERE seq <= NEW.seq - 100000;
            END;
CREATE TRIGGER jobs_added AFTER INSERT ON jobs BEGIN
                UPDATE state_counts SET number = number + 1 WHERE state = NEW.state;
                UPDATE lanes SET unfinished = unfinished + (NEW.state NOT IN ('completed', 'failed', 'cancelled', 'dead')),
                    ready = ready + (NEW.waits_for IS 'worker') WHERE id = NEW.lane;
            END;
CREATE TRIGGER jobs_removed AFTER DELETE ON jobs BEGIN
            UPDATE state_counts SET number = number - 1 WHERE state = OLD.state;
        END;
CREATE TRIGGER jobs_counted AFTER UPDATE OF state ON jobs WHEN NEW.state <> OLD.state BEGIN
            UPDATE state_counts SET number = number - 1 WHERE state = OLD.state;
            UPDATE state_counts SET number = number + 1 WHERE state = NEW.state;
        END;
CREATE TRIGGER jobs_lane AFTER UPDATE OF state, waits_for ON jobs
             WHEN (NEW.waits_for IS 'worker') <> (OLD.waits_for IS 'worker')
               OR (NEW.state IN ('completed', 'failed', 'cancelled', 'dead')) <> (OLD.state IN ('completed', 'failed', 'cancelled', 'dead'))
             BEGIN
                UPDATE lanes SET
                    ready = ready + (NEW.waits_for IS 'worker') - (OLD.waits_for IS 'worker'),
                    unfinished = unfinished + (NEW.state NOT IN ('completed', 'failed', 'cancelled', 'dead')) - (OLD.state NOT IN ('completed', 'failed', 'cancelled', 'dead'))
                    WHERE id = NEW.lane;
                DELETE FROM lanes WHERE id = NEW.lane AND unfinished = 0 AND NEW.state IN ('completed', 'failed', 'cancelled', 'dead');
             END;
CREATE TRIGGER jobs_ended AFTER UPDATE OF state ON jobs
             WHEN NEW.state IN ('completed', 'failed', 'cancelled', 'dead') AND OLD.state NOT IN ('completed', 'failed', 'cancelled', 'dead')
              AND EXISTS (SELECT 1 FROM dependencies WHERE on_seq = NEW.seq)
             BEGIN
                INSERT INTO settling (on_seq) VALUES (NEW.seq);
             END;
CREATE TRIGGER jobs_key_added AFTER INSERT ON jobs
             WHEN NEW.concurrency_key IS NOT NULL AND NEW.state = 'pending'
             BEGIN
                INSERT INTO keys (key, maximum, held, unfinished)
                    VALUES (NEW.concurrency_key, NEW.concurrency_limit, 0, 1)
                    ON CONFLICT (key) DO UPDATE SET maximum = excluded.maximum, unfinished = unfinished + 1;
                UPDATE jobs SET waits_for = 'concurrency'
            WHERE concurrency_key = NEW.concurrency_key AND waits_for = 'worker' AND seq NOT IN (SELECT job.seq FROM lanes AS lane CROSS JOIN jobs AS job WHERE job.seq IN (
            SELECT first.seq FROM jobs AS first
            WHERE first.concurrency_key = NEW.concurrency_key AND first.lane = lane.id
              AND first.waits_for IN ('concurrency', 'worker')
            ORDER BY first.priority DESC, first.seq
            LIMIT coalesce((SELECT max(0, maximum - held) FROM keys WHERE key = NEW.concurrency_key), 0)));
         UPDATE jobs SET waits_for = 'worker' WHERE seq IN (SELECT job.seq FROM lanes AS lane CROSS JOIN jobs AS job WHERE job.seq IN (
            SELECT first.seq FROM jobs AS first
            WHERE first.concurrency_key = NEW.concurrency_key AND first.lane = lane.id
              AND first.waits_for IN ('concurrency', 'worker')
            ORDER BY first.priority DESC, first.seq
            LIMIT coalesce((SELECT max(0, maximum - held) FROM keys WHERE key = NEW.concurrency_key), 0))) AND waits_for = 'concurrency';
             END;
CREATE TRIGGER jobs_key_moved AFTER UPDATE OF state, waits_for ON jobs
             WHEN NEW.concurrency_key IS NOT NULL
              AND ((NEW.state IN ('claimed', 'in_progress')) <> (OLD.state IN ('claimed', 'in_progress'))
                OR (NEW.state IN ('completed', 'failed', 'cancelled', 'dead')) <> (OLD.state IN ('completed', 'failed', 'cancelled', 'dead'))
                OR coalesce(NEW.waits_for IN ('concurrency', 'worker'), 0) <> coalesce(OLD.waits_for IN ('concurrency', 'worker'), 0))
             BEGIN
                INSERT INTO keys (key, maximum, held, unfinished)
                    SELECT NEW.concurrency_key, NEW.concurrency_limit, 0, 0
                    WHERE OLD.state IN ('completed', 'failed', 'cancelled', 'dead')
                    ON CONFLICT (key) DO NOTHING;
                UPDATE keys SET
                    held = held + (NEW.state IN ('claimed', 'in_progress')) - (OLD.state IN ('claimed', 'in_progress')),
                    unfinished = unfinished + (NEW.state NOT IN ('completed', 'failed', 'cancelled', 'dead')) - (OLD.state NOT IN ('completed', 'failed', 'cancelled', 'dead'))
                    WHERE key = NEW.concurrency_key;
                DELETE FROM keys WHERE key = NEW.concurrency_key AND unfinished = 0;
                UPDATE jobs SET waits_for = 'concurrency'
            WHERE concurrency_key = NEW.concurrency_key AND waits_for = 'worker' AND seq NOT IN (SELECT job.seq FROM lanes AS lane CROSS JOIN jobs AS job WHERE job.seq IN (
            SELECT first.seq FROM jobs AS first
            WHERE first.concurrency_key = NEW.concurrency_key AND first.lane = lane.id
              AND first.waits_for IN ('concurrency', 'worker')
            ORDER BY first.priority DESC, first.seq
            LIMIT coalesce((SELECT max(0, maximum - held) FROM keys WHERE key = NEW.concurrency_key), 0)));
         UPDATE jobs SET waits_for = 'worker' WHERE seq IN (SELECT job.seq FROM lanes AS lane CROSS JOIN jobs AS job WHERE job.seq IN (
            SELECT first.seq FROM jobs AS first
            WHERE first.concurrency_key = NEW.concurrency_key AND first.lane = lane.id
              AND first.waits_for IN ('concurrency', 'worker')
            ORDER BY first.priority DESC, first.seq
            LIMIT coalesce((SELECT max(0, maximum - held) FROM keys WHERE key = NEW.concurrency_key), 0))) AND waits_for = 'concurrency';
             END;
CREATE VIEW call_submit (request, digest, at, job, submitted_on, spec, spec_digest, kind, labels, priority, run_after_ms, attempts_max, losses_max, backoff, timeout_ms, concurrency_key, concurrency_limit, dependencies, on_dependency_failure, idempotency_key, schedule, revision, tick_ms, next_ms) AS SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL;
CREATE TRIGGER call_submit_do INSTEAD OF INSERT ON call_submit BEGIN SELECT RAISE(IGNORE) WHERE EXISTS (SELECT 1 FROM requests WHERE id = NEW.request);
            INSERT INTO requests (id, digest, verdict, job, state, waits_for, detail)
                SELECT NEW.request, NEW.digest, CASE
                    WHEN known.spec_digest = NEW.spec_digest THEN 'existing'
                    WHEN known.seq IS NOT NULL THEN 'key_reused'
                    WHEN NEW.schedule IS NOT NULL AND NOT EXISTS (SELECT 1 FROM schedules
    WHERE name = NEW.schedule AND revision = NEW.revision AND next_ms = NEW.tick_ms) THEN 'tick_taken'
                    WHEN EXISTS (SELECT 1 FROM jobs WHERE id = NEW.job) THEN 'id_taken'
                    WHEN missing IS NOT NULL THEN 'unknown_dependency'
                    WHEN NOT EXISTS (SELECT 1 FROM lanes WHERE kind = NEW.kind AND labels = NEW.labels)
                        AND (SELECT count(*) FROM lanes) >= 512 THEN 'too_many_label_sets'
                    ELSE 'submitted' END,
                    coalesce(known.id, NEW.job), known.state, known.waits_for, missing
                FROM (SELECT (SELECT named.value FROM json_each(NEW.dependencies) AS named
                        WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE id = named.value)
                        ORDER BY named.key LIMIT 1) AS missing)
                LEFT JOIN jobs AS known ON known.idempotency_key = NEW.idempotency_key;
            SELECT RAISE(IGNORE) WHERE EXISTS
            (SELECT 1 FROM requests WHERE id = NEW.request AND verdict <> 'submitted');
            INSERT INTO lanes (kind, labels, ready, unfinished) VALUES (NEW.kind, NEW.labels, 0, 0)
                ON CONFLICT (kind, labels) DO NOTHING;
            INSERT INTO jobs (id, spec, spec_digest, kind, labels, lane, priority, run_after_ms, attempts_max,
                    losses_max, backoff, timeout_ms, concurrency_key, concurrency_limit, on_dependency_failure,
                    dependencies_open, idempotency_key, schedule, submitted_on, created_at_ms, updated_at_ms,
                    finished_at_ms, state, waits_for, token, failures, losses, renewals, cancel_requested, error)
                SELECT NEW.job, NEW.spec, NEW.spec_digest, NEW.kind, NEW.labels,
                    (SELECT id FROM lanes WHERE kind = NEW.kind AND labels = NEW.labels),
                    NEW.priority, NEW.run_after_ms, NEW.attempts_max, NEW.losses_max, NEW.backoff, NEW.timeout_ms,
                    NEW.concurrency_key, NEW.concurrency_limit, NEW.on_dependency_failure,
                    iif(doom IS NULL, open, 0), NEW.idempotency_key, NEW.schedule, NEW.submitted_on, NEW.at, NEW.at,
                    iif(doom IS NULL, NULL, NEW.at), iif(doom IS NULL, 'pending', 'cancelled'),
                    CASE WHEN doom IS NOT NULL THEN NULL
                        WHEN open > 0 THEN 'dependencies'
                        WHEN NEW.run_after_ms IS NOT NULL THEN 'run_after'
                        WHEN NEW.concurrency_key IS NOT NULL THEN 'concurrency'
                        ELSE 'worker' END,
                    0, 0, 0, 0, 0, doom
                FROM (SELECT
                    (SELECT count(*) FROM json_each(NEW.dependencies) AS named JOIN jobs AS it ON it.id = named.value
                        WHERE it.finished_at_ms IS NULL) AS open,
                    (SELECT 'dependency ' || it.id || ' ended as ' || it.state
                        FROM json_each(NEW.dependencies) AS named JOIN jobs AS it ON it.id = named.value
                        WHERE NEW.on_dependency_failure = 'cancel'
                            AND it.state IN ('failed', 'cancelled', 'dead')
                        ORDER BY named.key LIMIT 1) AS doom);
            INSERT INTO dependencies (on_seq, waiting)
                SELECT it.seq, added.seq FROM jobs AS added
                    JOIN json_each(NEW.dependencies) AS named JOIN jobs AS it ON it.id = named.value
                WHERE added.id = NEW.job AND added.state = 'pending' AND it.finished_at_ms IS NULL;
            DELETE FROM lanes WHERE kind = NEW.kind AND labels = NEW.labels AND unfinished = 0;
            UPDATE requests SET (state, waits_for) = (SELECT state, waits_for FROM jobs WHERE id = NEW.job)
                WHERE id = NEW.request;
            UPDATE schedules SET next_ms = NEW.next_ms WHERE name = NEW.schedule; END;
CREATE VIEW call_claim (request, digest, at, step, node, worker, labels, kinds) AS SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL;
CREATE TRIGGER call_claim_do INSTEAD OF INSERT ON call_claim BEGIN INSERT INTO requests (id, digest, verdict, step, number, claims)
            SELECT NEW.request, NEW.digest, 'claimed', 0, 0, '[]' WHERE NEW.step = 0
            ON CONFLICT (id) DO NOTHING;
         SELECT RAISE(IGNORE) WHERE NOT EXISTS (SELECT 1 FROM requests
            WHERE id = NEW.request AND digest = NEW.digest AND verdict = 'claimed' AND step = NEW.step);
            UPDATE requests SET picked = (
                SELECT seq FROM (
                    SELECT job.seq AS seq, job.priority AS priority, job.submitted_on = NEW.node AS own
                    FROM lanes AS lane CROSS JOIN jobs AS job ON job.seq = (
                        SELECT first.seq FROM jobs AS first
                        WHERE first.lane = lane.id AND first.waits_for = 'worker'
                        ORDER BY first.priority DESC, first.seq LIMIT 1)
                    WHERE lane.ready > 0
        AND (NEW.kinds IS NULL OR lane.kind IN (SELECT value FROM json_each(NEW.kinds)))
        AND NOT EXISTS (SELECT 1 FROM json_each(lane.labels) AS need
            WHERE need.value NOT IN (SELECT value FROM json_each(NEW.labels)))
                    UNION ALL
                    SELECT job.seq, job.priority, 1
                    FROM lanes AS lane CROSS JOIN jobs AS job ON job.seq = (
                        SELECT first.seq FROM jobs AS first
                        WHERE first.lane = lane.id AND first.submitted_on = NEW.node AND first.waits_for = 'worker'
                        ORDER BY first.priority DESC, first.seq LIMIT 1)
                    WHERE lane.ready > 0
        AND (NEW.kinds IS NULL OR lane.kind IN (SELECT value FROM json_each(NEW.kinds)))
        AND NOT EXISTS (SELECT 1 FROM json_each(lane.labels) AS need
            WHERE need.value NOT IN (SELECT value FROM json_each(NEW.labels))))
                ORDER BY priority DESC, own DESC, seq LIMIT 1)
                WHERE id = NEW.request;
            UPDATE requests SET step = iif(picked IS NULL, -1, step + 1) WHERE id = NEW.request;
            SELECT RAISE(IGNORE) WHERE (SELECT picked FROM requests WHERE id = NEW.request) IS NULL;
            UPDATE jobs SET state = 'claimed', waits_for = NULL, token = token + 1, renewals = 0,
                claimed_by = NEW.worker, claimed_on = NEW.node, updated_at_ms = NEW.at
                WHERE seq = (SELECT picked FROM requests WHERE id = NEW.request);
            INSERT INTO attempts (job_seq, token, worker, node, claimed_at_ms, log_next, log_bytes, log_dropped_bytes)
                SELECT seq, token, NEW.worker, NEW.node, NEW.at, 0, 0, 0 FROM jobs WHERE seq = (SELECT picked FROM requests WHERE id = NEW.request);
            UPDATE requests SET claims = json_insert(claims, '$[#]',
                    json_array(picked, (SELECT token FROM jobs WHERE seq = picked)))
                WHERE id = NEW.request; END;
CREATE VIEW call_start (request, digest, at, job, token) AS SELECT NULL, NULL, NULL, NULL, NULL;
CREATE TRIGGER call_start_do INSTEAD OF INSERT ON call_start BEGIN SELECT RAISE(IGNORE) WHERE EXISTS (SELECT 1 FROM requests WHERE id = NEW.request); INSERT INTO requests (id, digest, job, before, verdict)
            SELECT NEW.request, NEW.digest, NEW.job, job.state, CASE
                WHEN job.seq IS NULL THEN 'unknown_job'
                WHEN job.token <> NEW.token THEN 'token_stale'
                WHEN job.state NOT IN ('claimed', 'in_progress') THEN 'lease_ended'
                WHEN job.state <> 'claimed' THEN 'illegal_transition' ELSE 'started' END
            FROM (SELECT 1) LEFT JOIN jobs AS job ON job.id = NEW.job; SELECT RAISE(IGNORE) WHERE EXISTS
            (SELECT 1 FROM requests WHERE id = NEW.request AND verdict <> 'started');
            UPDATE attempts SET started_at_ms = NEW.at WHERE job_seq = (SELECT seq FROM jobs WHERE id = NEW.job) AND token = NEW.token;
            UPDATE jobs SET state = 'in_progress', updated_at_ms = NEW.at WHERE id = NEW.job; END;
CREATE VIEW call_renew (request, digest, at, job, token) AS SELECT NULL, NULL, NULL, NULL, NULL;
CREATE TRIGGER call_renew_do INSTEAD OF INSERT ON call_renew BEGIN SELECT RAISE(IGNORE) WHERE EXISTS (SELECT 1 FROM requests WHERE id = NEW.request); INSERT INTO requests (id, digest, job, before, verdict, number, flag)
            SELECT NEW.request, NEW.digest, NEW.job, job.state, CASE
                WHEN job.seq IS NULL THEN 'unknown_job'
                WHEN job.token <> NEW.token THEN 'token_stale'
                WHEN job.state NOT IN ('claimed', 'in_progress') THEN 'lease_ended'
                ELSE 'renewed' END, job.renewals + 1, job.cancel_requested
            FROM (SELECT 1) LEFT JOIN jobs AS job ON job.id = NEW.job; SELECT RAISE(IGNORE) WHERE EXISTS
            (SELECT 1 FROM requests WHERE id = NEW.request AND verdict <> 'renewed');
            UPDATE jobs SET renewals = renewals + 1 WHERE id = NEW.job; END;
CREATE VIEW call_log (request, digest, at, job, token, number, stream, bytes) AS SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL;
CREATE TRIGGER call_log_do INSTEAD OF INSERT ON call_log BEGIN SELECT RAISE(IGNORE) WHERE EXISTS (SELECT 1 FROM requests WHERE id = NEW.request); INSERT INTO requests (id, digest, job, before, verdict, number)
            SELECT NEW.request, NEW.digest, NEW.job, job.state, CASE
                WHEN job.seq IS NULL THEN 'unknown_job'
                WHEN job.token <> NEW.token THEN 'token_stale'
                WHEN job.state NOT IN ('claimed', 'in_progress') THEN 'lease_ended'
                WHEN NEW.number > (SELECT log_next FROM attempts WHERE job_seq = job.seq AND token = job.token) THEN 'log_gap' WHEN NEW.number < (SELECT log_next FROM attempts WHERE job_seq = job.seq AND token = job.token) THEN 'log_repeated' ELSE 'logged' END, (SELECT log_next FROM attempts WHERE job_seq = job.seq AND token = job.token)
            FROM (SELECT 1) LEFT JOIN jobs AS job ON job.id = NEW.job;
            UPDATE requests SET flag = (SELECT log_dropped_bytes FROM attempts WHERE job_seq = (SELECT seq FROM jobs WHERE id = NEW.job) AND token = NEW.token) WHERE id = NEW.request;
            SELECT RAISE(IGNORE) WHERE EXISTS
            (SELECT 1 FROM requests WHERE id = NEW.request AND verdict <> 'logged');
            INSERT INTO logs (job_seq, token, number, stream, at_ms, bytes)
                SELECT job_seq, token, NEW.number, NEW.stream, NEW.at, substr(NEW.bytes, 1, min(length(NEW.bytes), max(0, 1048576 - log_bytes)))
                FROM attempts WHERE job_seq = (SELECT seq FROM jobs WHERE id = NEW.job) AND token = NEW.token AND min(length(NEW.bytes), max(0, 1048576 - log_bytes)) > 0;
            UPDATE attempts SET log_next = log_next + 1, log_bytes = log_bytes + min(length(NEW.bytes), max(0, 1048576 - log_bytes)),
                    log_dropped_bytes = log_dropped_bytes + length(NEW.bytes) - min(length(NEW.bytes), max(0, 1048576 - log_bytes))
                WHERE job_seq = (SELECT seq FROM jobs WHERE id = NEW.job) AND token = NEW.token;
            UPDATE requests SET (number, flag) = (SELECT log_next, log_dropped_bytes FROM attempts WHERE job_seq = (SELECT seq FROM jobs WHERE id = NEW.job) AND token = NEW.token)
                WHERE id = NEW.request; END;
CREATE VIEW call_finish (request, digest, at, job, token, outcome, permanent, error, result, cause, renewals) AS SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL;
CREATE TRIGGER call_finish_do INSTEAD OF INSERT ON call_finish BEGIN SELECT RAISE(IGNORE) WHERE EXISTS (SELECT 1 FROM requests WHERE id = NEW.request); INSERT INTO requests (id, digest, job, before, verdict, state)
            SELECT NEW.request, NEW.digest, NEW.job, job.state, CASE
                WHEN job.seq IS NULL THEN 'unknown_job'
                WHEN job.token <> NEW.token THEN 'token_stale'
                WHEN job.state NOT IN ('claimed', 'in_progress') THEN 'lease_ended'
                WHEN NEW.cause = 'lease' AND job.renewals <> NEW.renewals THEN 'renewed_since'
                WHEN NEW.cause = 'timeout' AND (job.state <> 'in_progress' OR job.timeout_ms IS NULL) THEN 'not_due'
                WHEN NEW.cause = 'cancel' AND NOT job.cancel_requested THEN 'not_due'
                WHEN NEW.cause IS NULL AND NEW.outcome IN ('succeeded', 'timed_out') AND job.state = 'claimed'
                    THEN 'illegal_transition'
                ELSE 'ended' END, CASE
        WHEN NEW.outcome = 'succeeded' THEN 'completed'
        WHEN job.cancel_requested OR NEW.outcome = 'cancelled' THEN 'cancelled'
        WHEN NEW.outcome = 'lost' THEN iif(job.losses + 1 >= job.losses_max, 'dead', 'pending')
        WHEN NEW.permanent THEN 'failed'
        WHEN job.failures + 1 < job.attempts_max THEN 'pending'
        ELSE iif(job.attempts_max = 1, 'failed', 'dead') END
            FROM (SELECT 1) LEFT JOIN jobs AS job ON job.id = NEW.job; SELECT RAISE(IGNORE) WHERE EXISTS
            (SELECT 1 FROM requests WHERE id = NEW.request AND verdict <> 'ended');
            UPDATE attempts SET outcome = NEW.outcome, ended_at_ms = NEW.at, error = NEW.error
                WHERE job_seq = (SELECT seq FROM jobs WHERE id = NEW.job) AND token = NEW.token;
            UPDATE jobs SET
                failures = failures + (NEW.outcome IN ('failed', 'timed_out')),
                losses = losses + (NEW.outcome = 'lost'),
                error = NEW.error,
                result = NEW.result,
                updated_at_ms = NEW.at,
                (state, waits_for, finished_at_ms) = (SELECT state,
                    CASE WHEN state <> 'pending' THEN NULL
                        WHEN NEW.outcome = 'lost' THEN iif(concurrency_key IS NULL, 'worker', 'concurrency')
                        ELSE 'backoff' END,
                    iif(state = 'pending', NULL, NEW.at) FROM requests WHERE id = NEW.request)
                WHERE id = NEW.job;
            UPDATE requests SET (waits_for, number, detail) =
                (SELECT waits_for, failures, json_object('token', token, 'backoff', json(backoff))
                    FROM jobs WHERE id = NEW.job)
                WHERE id = NEW.request;
            UPDATE requests SET flag =
    EXISTS (SELECT 1 FROM settling WHERE on_seq = (SELECT seq FROM jobs WHERE id = NEW.job)) WHERE id = NEW.request; END;
CREATE VIEW call_cancel (request, digest, at, job) AS SELECT NULL, NULL, NULL, NULL;
CREATE TRIGGER call_cancel_do INSTEAD OF INSERT ON call_cancel BEGIN SELECT RAISE(IGNORE) WHERE EXISTS (SELECT 1 FROM requests WHERE id = NEW.request); INSERT INTO requests (id, digest, job, before, verdict)
            SELECT NEW.request, NEW.digest, NEW.job, job.state, CASE
                WHEN job.seq IS NULL THEN 'unknown_job'
                WHEN job.finished_at_ms IS NOT NULL THEN 'illegal_transition' ELSE 'cancelled' END
            FROM (SELECT 1) LEFT JOIN jobs AS job ON job.id = NEW.job; SELECT RAISE(IGNORE) WHERE EXISTS
            (SELECT 1 FROM requests WHERE id = NEW.request AND verdict <> 'cancelled');
            UPDATE jobs SET updated_at_ms = NEW.at, cancel_requested = iif(state = 'pending', 0, 1),
                waits_for = NULL, finished_at_ms = iif(state = 'pending', NEW.at, NULL),
                state = iif(state = 'pending', 'cancelled', state)
                WHERE id = NEW.job;
            UPDATE requests SET state = (SELECT state FROM jobs WHERE id = NEW.job) WHERE id = NEW.request;
            UPDATE requests SET flag =
    EXISTS (SELECT 1 FROM settling WHERE on_seq = (SELECT seq FROM jobs WHERE id = NEW.job)) WHERE id = NEW.request; END;
CREATE VIEW call_retry (request, digest, at, job) AS SELECT NULL, NULL, NULL, NULL;
CREATE TRIGGER call_retry_do INSTEAD OF INSERT ON call_retry BEGIN SELECT RAISE(IGNORE) WHERE EXISTS (SELECT 1 FROM requests WHERE id = NEW.request); INSERT INTO requests (id, digest, job, before, verdict)
            SELECT NEW.request, NEW.digest, NEW.job, job.state, CASE
                WHEN job.seq IS NULL THEN 'unknown_job'
                WHEN job.state NOT IN ('failed', 'dead') THEN 'illegal_transition'
                WHEN NOT EXISTS (SELECT 1 FROM lanes WHERE kind = job.kind AND labels = job.labels)
                    AND (SELECT count(*) FROM lanes) >= 512 THEN 'too_many_label_sets'
                ELSE 'retried' END
            FROM (SELECT 1) LEFT JOIN jobs AS job ON job.id = NEW.job; SELECT RAISE(IGNORE) WHERE EXISTS
            (SELECT 1 FROM requests WHERE id = NEW.request AND verdict <> 'retried');
            INSERT INTO lanes (kind, labels, ready, unfinished)
                SELECT kind, labels, 0, 0 FROM jobs WHERE id = NEW.job
                ON CONFLICT (kind, labels) DO NOTHING;
            DELETE FROM settling WHERE on_seq = (SELECT seq FROM jobs WHERE id = NEW.job);
            UPDATE jobs SET state = 'pending', waits_for = iif(concurrency_key IS NULL, 'worker', 'concurrency'), failures = 0, losses = 0, cancel_requested = 0,
                error = NULL, finished_at_ms = NULL, updated_at_ms = NEW.at,
                lane = (SELECT lanes.id FROM lanes WHERE lanes.kind = jobs.kind AND lanes.labels = jobs.labels)
                WHERE id = NEW.job; END;
CREATE VIEW call_ready (request, digest, at, job, token) AS SELECT NULL, NULL, NULL, NULL, NULL;
CREATE TRIGGER call_ready_do INSTEAD OF INSERT ON call_ready BEGIN SELECT RAISE(IGNORE) WHERE EXISTS (SELECT 1 FROM requests WHERE id = NEW.request); INSERT INTO requests (id, digest, job, before, verdict)
            SELECT NEW.request, NEW.digest, NEW.job, job.state, CASE
                WHEN job.seq IS NULL THEN 'unknown_job'
                WHEN job.token <> NEW.token THEN 'token_stale'
                WHEN job.waits_for IS NOT 'backoff' THEN 'not_due' ELSE 'ready' END
            FROM (SELECT 1) LEFT JOIN jobs AS job ON job.id = NEW.job; SELECT RAISE(IGNORE) WHERE EXISTS
            (SELECT 1 FROM requests WHERE id = NEW.request AND verdict <> 'ready');
            UPDATE jobs SET waits_for = iif(concurrency_key IS NULL, 'worker', 'concurrency'), updated_at_ms = NEW.at WHERE id = NEW.job; END;
CREATE VIEW call_due (request, digest, at, step, now_ms) AS SELECT NULL, NULL, NULL, NULL, NULL;
CREATE TRIGGER call_due_do INSTEAD OF INSERT ON call_due BEGIN INSERT INTO requests (id, digest, verdict, step, number, claims)
            SELECT NEW.request, NEW.digest, 'due', 0, 0, '[]' WHERE NEW.step = 0
            ON CONFLICT (id) DO NOTHING;
         SELECT RAISE(IGNORE) WHERE NOT EXISTS (SELECT 1 FROM requests
            WHERE id = NEW.request AND digest = NEW.digest AND verdict = 'due' AND step = NEW.step);
            UPDATE requests SET step = step + 1, picked = (SELECT seq FROM jobs
                WHERE waits_for = 'run_after' AND run_after_ms <= NEW.now_ms ORDER BY run_after_ms, seq LIMIT 1)
                WHERE id = NEW.request;
            UPDATE jobs SET waits_for = iif(concurrency_key IS NULL, 'worker', 'concurrency'), updated_at_ms = NEW.at WHERE seq = (SELECT picked FROM requests WHERE id = NEW.request);
            UPDATE requests SET number = number + (picked IS NOT NULL),
                flag = (SELECT run_after_ms FROM jobs WHERE waits_for = 'run_after' ORDER BY run_after_ms LIMIT 1)
                WHERE id = NEW.request; END;
CREATE VIEW call_settle (request, digest, at, step) AS SELECT NULL, NULL, NULL, NULL;
CREATE TRIGGER call_settle_do INSTEAD OF INSERT ON call_settle BEGIN INSERT INTO requests (id, digest, verdict, step, number, claims)
            SELECT NEW.request, NEW.digest, 'settled', 0, 0, '[]' WHERE NEW.step = 0
            ON CONFLICT (id) DO NOTHING;
         SELECT RAISE(IGNORE) WHERE NOT EXISTS (SELECT 1 FROM requests
            WHERE id = NEW.request AND digest = NEW.digest AND verdict = 'settled' AND step = NEW.step);
            UPDATE requests SET step = step + 1, picked = (SELECT waiting FROM dependencies
                WHERE on_seq = (SELECT min(on_seq) FROM settling) ORDER BY waiting LIMIT 1)
                WHERE id = NEW.request;
            UPDATE jobs SET
                dependencies_open = dependencies_open - ((SELECT state FROM jobs WHERE seq = (SELECT min(on_seq) FROM settling)) = 'completed' OR on_dependency_failure = 'run'),
                error = iif(((SELECT state FROM jobs WHERE seq = (SELECT min(on_seq) FROM settling)) = 'completed' OR on_dependency_failure = 'run'), error,
                    (SELECT 'dependency ' || it.id || ' ended as ' || it.state FROM jobs AS it WHERE it.seq = (SELECT min(on_seq) FROM settling))),
                finished_at_ms = iif(((SELECT state FROM jobs WHERE seq = (SELECT min(on_seq) FROM settling)) = 'completed' OR on_dependency_failure = 'run'), NULL, NEW.at),
                updated_at_ms = iif(((SELECT state FROM jobs WHERE seq = (SELECT min(on_seq) FROM settling)) = 'completed' OR on_dependency_failure = 'run') AND dependencies_open > 1, updated_at_ms, NEW.at),
                state = iif(((SELECT state FROM jobs WHERE seq = (SELECT min(on_seq) FROM settling)) = 'completed' OR on_dependency_failure = 'run'), 'pending', 'cancelled'),
                waits_for = CASE WHEN NOT ((SELECT state FROM jobs WHERE seq = (SELECT min(on_seq) FROM settling)) = 'completed' OR on_dependency_failure = 'run') THEN NULL
                    WHEN dependencies_open > 1 THEN 'dependencies'
                    WHEN run_after_ms IS NOT NULL THEN 'run_after'
                    ELSE iif(concurrency_key IS NULL, 'worker', 'concurrency') END
                WHERE seq = (SELECT picked FROM requests WHERE id = NEW.request) AND waits_for = 'dependencies';
            DELETE FROM dependencies WHERE on_seq = (SELECT min(on_seq) FROM settling) AND waiting = (SELECT picked FROM requests WHERE id = NEW.request);
            DELETE FROM settling WHERE on_seq = (SELECT min(on_seq) FROM settling)
                AND NOT EXISTS (SELECT 1 FROM dependencies WHERE dependencies.on_seq = settling.on_seq);
            UPDATE requests SET number = number + (picked IS NOT NULL), flag = EXISTS (SELECT 1 FROM settling),
                detail = (SELECT CAST(run_after_ms AS TEXT) FROM jobs WHERE waits_for = 'run_after'
                    ORDER BY run_after_ms LIMIT 1)
                WHERE id = NEW.request; END;
CREATE VIEW call_prune (request, digest, at, step, keep, before_ms) AS SELECT NULL, NULL, NULL, NULL, NULL, NULL;
CREATE TRIGGER call_prune_do INSTEAD OF INSERT ON call_prune BEGIN INSERT INTO requests (id, digest, verdict, step, number, claims)
            SELECT NEW.request, NEW.digest, 'pruned', 0, 0, '[]' WHERE NEW.step = 0
            ON CONFLICT (id) DO NOTHING;
         SELECT RAISE(IGNORE) WHERE NOT EXISTS (SELECT 1 FROM requests
            WHERE id = NEW.request AND digest = NEW.digest AND verdict = 'pruned' AND step = NEW.step);
            UPDATE requests SET step = step + 1, picked = (SELECT seq FROM (
                    SELECT seq, finished_at_ms AS ended FROM jobs
                    WHERE finished_at_ms IS NOT NULL
                        AND NOT EXISTS (SELECT 1 FROM settling WHERE on_seq = jobs.seq)
                    ORDER BY finished_at_ms, seq LIMIT 1)
                WHERE ended < NEW.before_ms OR NEW.keep < (SELECT sum(number) FROM state_counts
                    WHERE state IN ('completed', 'failed', 'cancelled', 'dead')))
                WHERE id = NEW.request;
            SELECT RAISE(IGNORE) WHERE (SELECT picked FROM requests WHERE id = NEW.request) IS NULL;
            DELETE FROM logs WHERE job_seq = (SELECT picked FROM requests WHERE id = NEW.request);
            DELETE FROM attempts WHERE job_seq = (SELECT picked FROM requests WHERE id = NEW.request);
            DELETE FROM dependencies WHERE waiting = (SELECT picked FROM requests WHERE id = NEW.request);
            DELETE FROM jobs WHERE seq = (SELECT picked FROM requests WHERE id = NEW.request);
            UPDATE requests SET number = number + 1 WHERE id = NEW.request; END;
CREATE VIEW call_set_schedule (request, digest, at, schedule, cron, missed, spec, next_ms) AS SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL;
CREATE TRIGGER call_set_schedule_do INSTEAD OF INSERT ON call_set_schedule BEGIN SELECT RAISE(IGNORE) WHERE EXISTS (SELECT 1 FROM requests WHERE id = NEW.request);
            INSERT INTO requests (id, digest, verdict) SELECT NEW.request, NEW.digest, iif(
                NOT EXISTS (SELECT 1 FROM schedules WHERE name = NEW.schedule)
                    AND (SELECT count(*) FROM schedules) >= 1000,
                'too_many_schedules', 'schedule_set');
            SELECT RAISE(IGNORE) WHERE EXISTS
            (SELECT 1 FROM requests WHERE id = NEW.request AND verdict <> 'schedule_set');
            INSERT INTO schedules (name, revision, cron, missed, spec, next_ms)
                SELECT NEW.schedule, seq, NEW.cron, NEW.missed, NEW.spec, NEW.next_ms
                FROM requests WHERE id = NEW.request
                ON CONFLICT (name) DO UPDATE SET revision = excluded.revision, cron = excluded.cron,
                    missed = excluded.missed, spec = excluded.spec, next_ms = excluded.next_ms;
            UPDATE requests SET number = seq WHERE id = NEW.request; END;
CREATE VIEW call_skip_tick (request, digest, at, schedule, revision, tick_ms, next_ms) AS SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL;
CREATE TRIGGER call_skip_tick_do INSTEAD OF INSERT ON call_skip_tick BEGIN SELECT RAISE(IGNORE) WHERE EXISTS (SELECT 1 FROM requests WHERE id = NEW.request);
            INSERT INTO requests (id, digest, verdict)
                SELECT NEW.request, NEW.digest, iif(NOT EXISTS (SELECT 1 FROM schedules
    WHERE name = NEW.schedule AND revision = NEW.revision AND next_ms = NEW.tick_ms), 'tick_taken', 'tick_skipped');
            SELECT RAISE(IGNORE) WHERE EXISTS
            (SELECT 1 FROM requests WHERE id = NEW.request AND verdict <> 'tick_skipped');
            UPDATE schedules SET next_ms = NEW.next_ms WHERE name = NEW.schedule; END;
CREATE VIEW call_remove_schedule (request, digest, at, schedule) AS SELECT NULL, NULL, NULL, NULL;
CREATE TRIGGER call_remove_schedule_do INSTEAD OF INSERT ON call_remove_schedule BEGIN SELECT RAISE(IGNORE) WHERE EXISTS (SELECT 1 FROM requests WHERE id = NEW.request);
            INSERT INTO requests (id, digest, verdict) SELECT NEW.request, NEW.digest,
                iif(EXISTS (SELECT 1 FROM schedules WHERE name = NEW.schedule), 'schedule_removed', 'unknown_schedule');
            DELETE FROM schedules WHERE name = NEW.schedule; END;
COMMIT;

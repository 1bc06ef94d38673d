-- The policy's company: 20,000 accounts and eight years of records. Set-based, and the same each time (setseed).
SELECT setseed(0.2026);
CREATE TABLE accounts (
    id bigint PRIMARY KEY, tier text NOT NULL, created_at timestamptz NOT NULL, deleted_at timestamptz,
    retention jsonb, tier_changed_at timestamptz
);
INSERT INTO accounts
SELECT i, CASE WHEN r < 0.70 THEN 'free' WHEN r < 0.95 THEN 'pro' ELSE 'enterprise' END,
       now() - random() * interval '8 years',
       CASE WHEN random() < 0.02 THEN now() - random() * interval '60 days' END,
       CASE WHEN r >= 0.95 AND random() < 0.25 THEN '{"operational_logs": "P7Y", "build_logs": "P7Y"}'::jsonb END,
       CASE WHEN random() < 0.01 THEN now() - random() * interval '60 days' END
FROM (SELECT i, random() AS r FROM generate_series(1, 20000) i) s;

CREATE TABLE request_logs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account_id bigint, created_at timestamptz NOT NULL,
    ip inet NOT NULL, user_agent text NOT NULL, path text NOT NULL
);
INSERT INTO request_logs (account_id, created_at, ip, user_agent, path)
SELECT CASE WHEN random() < 0.95 THEN 1 + (random() * 19999)::int END,
       now() - (random() ^ 2) * interval '8 years',
       '10.0.0.0'::inet + (random() * 16000000)::bigint, 'Mozilla/5.0', '/jobs/' || i
FROM generate_series(1, 400000) i;

CREATE TABLE build_logs (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account_id bigint, at timestamptz, line text);
INSERT INTO build_logs (account_id, at, line)
SELECT 1 + (random() * 19999)::int, now() - random() * interval '8 years', 'cc -O2 job' || i FROM generate_series(1, 60000) i;

CREATE TABLE audit_log (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), account_id bigint, at timestamptz, action text);
INSERT INTO audit_log (account_id, at, action)
SELECT 1 + (random() * 19999)::int, now() - random() * interval '9 years', 'login' FROM generate_series(1, 40000);

CREATE TABLE invoices (number text PRIMARY KEY, account_id bigint, issued date, cents bigint);
INSERT INTO invoices
SELECT 'INV-' || i, 1 + (random() * 19999)::int, current_date - (random() * 9 * 365)::int, 2900 FROM generate_series(1, 20000) i;

CREATE TABLE prompts (account_id bigint, number int, at timestamptz, text text, PRIMARY KEY (account_id, number));
INSERT INTO prompts
SELECT 1 + i % 20000, i / 20000, now() - random() * interval '3 years', 'a shop for tea' FROM generate_series(0, 39999) i;

CREATE TABLE usage_metrics (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account_id bigint, at timestamptz, jobs int);
INSERT INTO usage_metrics (account_id, at, jobs)
SELECT 1 + (random() * 19999)::int, now() - random() * interval '3 years', (random() * 20)::int FROM generate_series(1, 60000);

CREATE INDEX ON request_logs (created_at);
CREATE INDEX ON request_logs (account_id);
CREATE INDEX ON build_logs (at);
CREATE INDEX ON build_logs (account_id);
CREATE INDEX ON audit_log (at);
CREATE INDEX ON audit_log (account_id);
CREATE INDEX ON invoices (issued);
CREATE INDEX ON invoices (account_id);
CREATE INDEX ON prompts (at);
CREATE INDEX ON usage_metrics (at);
CREATE INDEX ON usage_metrics (account_id);
ANALYZE;

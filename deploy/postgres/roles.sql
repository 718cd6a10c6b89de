-- SPDX-License-Identifier: Apache-2.0
-- The three roles of Cloister's database.  Run it in that database as a superuser, before the first
-- `cloister-server migrate`; running it again changes nothing:
--
--     createdb cloister && psql --dbname cloister --file roles.sql
--
--   cloister_owner    owns the tables and changes the schema: `cloister-server migrate` alone
--   cloister_app      serves: no DDL; inserts and reads the audit log, and can neither change nor delete an entry
--   cloister_console  reads, and no wraps of keys
--
-- `migrate` grants to cloister_app and cloister_console what each table needs (cloister_server/database/grants.py), so
-- that an upgrade with new tables needs no second run of this file.  Nobody has a password here: let the operating
-- system's users in by `peer` with a map in pg_ident.conf, or set one with \password and name its file in
-- [database] password_file.

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['cloister_owner', 'cloister_app', 'cloister_console'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', role);
        END IF;
    END LOOP;
    -- TEMPORARY goes with the rest: a role without DDL makes no temporary tables either.
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO cloister_owner, cloister_app, cloister_console', current_database());
END
$$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
ALTER SCHEMA public OWNER TO cloister_owner;
GRANT USAGE ON SCHEMA public TO cloister_app, cloister_console;

-- Functions that others bring are not for everybody.
ALTER DEFAULT PRIVILEGES FOR ROLE cloister_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- A console's mistake must not hold locks, nor write where a privilege was granted too widely.
ALTER ROLE cloister_console SET default_transaction_read_only = on;
ALTER ROLE cloister_console SET statement_timeout = '30s';
ALTER ROLE cloister_console SET idle_in_transaction_session_timeout = '60s';

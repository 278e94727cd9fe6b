"""What a person reads who got control files wrong: every message in full, with its file and line."""

# ruff: noqa: E501  # messages stand here as they are printed

from __future__ import annotations

from textwrap import dedent

import pytest

FAULTS: dict[str, tuple[dict[str, str | None], str]] = {
    "a typo in a key": (
        {
            "control/ingestion/erp.yaml": """\
                source: erp
                tables:
                  - object: public.customers
                    modee: full
                    key: [id]
                """,
        },
        """\
            control/ingestion/erp.yaml:3: 'mode' is missing
            control/ingestion/erp.yaml:4: unknown key 'modee'
              known keys: columns, cursor, delete_floor, deleted_flag, description, detect_changes, detect_deletes, expectations, filter, isolated, key, lookback, max_delete_ratio, mode, object, on_bad_key, options, owners, parallel, paused, … (31 in all)
              did you mean 'mode'?
            control/processing/silver.yaml:2: unknown table 'bronze.orders'
              known tables: gold.forecast, silver.order_totals
            """,
    ),
    "a typo at the top of a file": (
        {
            "control/ingestion/erp.yaml": """\
                sorce: erp
                tables: []
                """,
        },
        """\
            control/ingestion/erp.yaml:1: 'source' is missing
              say at the top of the file: source: <name>
            control/ingestion/erp.yaml:1: unknown key 'sorce'
              known keys: source, tables, workstream
              did you mean 'source'?
            control/processing/silver.yaml:2: unknown table 'bronze.customers'
              known tables: gold.forecast, silver.order_totals
            control/processing/silver.yaml:2: unknown table 'bronze.orders'
              known tables: gold.forecast, silver.order_totals
            """,
    ),
    "an empty file": (
        {
            "control/ingestion/erp.yaml": "",
        },
        """\
            control/ingestion/erp.yaml: the file is empty
              it should begin like: source: <connection>
            """,
    ),
    "a file in a wrong folder": (
        {
            "control/ingest/erp.yaml": """\
                source: erp
                """,
        },
        """\
            control/ingest/erp.yaml: unknown folder 'ingest'
              known kinds: alerts, connections, dbt, ingestion, location, processing, refresh, upkeep, variables (each <kind>.yaml, or any .yaml file below <kind>/)
              did you mean 'ingestion'?
            """,
    ),
    "a file of a wrong name": (
        {
            "control/conections.yaml": """\
                connections: []
                """,
        },
        """\
            control/conections.yaml: unknown control file 'conections.yaml'
              known kinds: alerts, connections, dbt, ingestion, location, processing, refresh, upkeep, variables (each <kind>.yaml, or any .yaml file below <kind>/)
              did you mean 'connections'?
            """,
    ),
    "a file that ends in yml": (
        {
            "control/ingestion/more.yml": """\
                source: erp
                """,
        },
        """\
            control/ingestion/more.yml: a control file ends in .yaml
              rename it to more.yaml
            """,
    ),
    "unknown source type": (
        {
            "control/connections.yaml": """\
                connections:
                  - {name: erp, type: servr, host: a, password: {secret: erp/x}}
                """,
        },
        """\
            control/connections.yaml:2: unknown source 'servr'
              known sources: broken, folder, server
              did you mean 'server'?
            control/refresh.yaml:8: unknown connection 'reports'
              known connections of workstream 'erp': erp
            """,
    ),
    "unknown connection": (
        {
            "control/ingestion/erp.yaml": """\
                source: epr
                tables:
                  - {object: public.customers, mode: append}
                  - {object: public.orders, mode: append}
                """,
        },
        """\
            control/ingestion/erp.yaml:1: unknown connection 'epr'
              known connections of workstream 'erp': erp, lists, reports
              did you mean 'erp'?
            """,
    ),
    "a missing query": (
        {
            "sql/order_totals.sql": None,
            "sql/order_total.sql": """\
                select 1
                """,
        },
        """\
            control/processing/silver.yaml:5: there is no file 'sql/order_totals.sql'
              looked for sql/order_totals.sql
              did you mean 'sql/order_total.sql'?
            """,
    ),
    "a query outside": (
        {
            "control/processing/silver.yaml": """\
                steps:
                - {name: order_totals, layer: silver, kind: sql, sql: ../../etc/passwd}
                - {name: forecast, layer: gold, kind: python, function: 'sales.steps:train'}
                """,
        },
        """\
            control/processing/silver.yaml:2: '../../etc/passwd' lies outside the location's package
              looked in {folder}/sales
            """,
    ),
    "unknown mask": (
        {
            "control/ingestion/erp.yaml": """\
                source: erp
                tables:
                  - object: public.orders
                    mode: full
                    key: [id]
                    columns:
                      email: {mask: hsah, domain: email}
                  - {object: public.customers, mode: append}
                """,
        },
        """\
            control/ingestion/erp.yaml:7: unknown mask 'hsah'
              known masks: full, hash, partial
              did you mean 'hash'?
            """,
    ),
    "wrong mask option": (
        {
            "control/ingestion/erp.yaml": """\
                source: erp
                tables:
                  - object: public.orders
                    mode: append
                    columns:
                      email: {mask: hash, domian: email}
                  - {object: public.customers, mode: append}
                """,
        },
        """\
            control/ingestion/erp.yaml:6: 'domain' is missing
            control/ingestion/erp.yaml:6: unknown key 'domian'
              known keys: domain
              did you mean 'domain'?
            """,
    ),
    "a mask written short": (
        {
            "control/ingestion/erp.yaml": """\
                source: erp
                tables:
                  - object: public.orders
                    mode: append
                    columns:
                      email: hash
                  - {object: public.customers, mode: append}
                """,
        },
        """\
            control/ingestion/erp.yaml:6: 'email': expected a mapping with the keys mask, personal, description, got a text
            """,
    ),
    "masking for mask": (
        {
            "control/ingestion/erp.yaml": """\
                source: erp
                tables:
                  - object: public.orders
                    mode: append
                    columns:
                      email: {masking: {mask: hash, options: {domain: x}}}
                  - {object: public.customers, mode: append}
                """,
        },
        """\
            control/ingestion/erp.yaml:6: unknown key 'masking'
              did you mean 'mask'?
            """,
    ),
    "maks for mask": (
        {
            "control/ingestion/erp.yaml": """\
                source: erp
                tables:
                  - object: public.orders
                    mode: append
                    columns:
                      email: {maks: hash}
                  - {object: public.customers, mode: append}
                """,
        },
        """\
            control/ingestion/erp.yaml:6: unknown key 'maks'
              known keys: description, mask, personal
              did you mean 'mask'?
            """,
    ),
    "wrong types": (
        {
            "control/ingestion/erp.yaml": """\
                source: erp
                tables:
                  - object: public.orders
                    mode: incremental
                    key: order_id
                    cursor: 5
                    isolated: no
                    max_delete_ratio: 2
                    lookback: soon
                    tags: [a]
                    columns:
                    description: true
                  - {object: public.customers, mode: append, key: [1]}
                """,
        },
        """\
            control/ingestion/erp.yaml:5: 'key': expected a list of texts, got a text
              write a list as [one, two]
            control/ingestion/erp.yaml:6: 'cursor': expected a text, got a whole number
            control/ingestion/erp.yaml:7: 'isolated': expected true or false, got a text
            control/ingestion/erp.yaml:8: 'max_delete_ratio' must be at most 1.0
            control/ingestion/erp.yaml:9: 'lookback': must read like '2 hours': a whole number and seconds, minutes, hours, days or weeks
            control/ingestion/erp.yaml:10: 'tags': expected a mapping (name: value), got a list
            control/ingestion/erp.yaml:11: 'columns': expected a mapping (name: value), got nothing
            control/ingestion/erp.yaml:12: 'description': expected a text, got true or false
            control/ingestion/erp.yaml:13: 'key' (entry 1): expected a text, got a whole number
            """,
    ),
    "unknown mode": (
        {
            "control/ingestion/erp.yaml": """\
                source: erp
                tables:
                  - {object: public.orders, mode: incremntal, key: [a], cursor: b}
                  - {object: public.customers, mode: append}
                """,
        },
        """\
            control/ingestion/erp.yaml:3: unknown mode 'incremntal'
              known: full, incremental, append
              did you mean 'incremental'?
            """,
    ),
    "mode without its keys": (
        {
            "control/ingestion/erp.yaml": """\
                source: erp
                tables:
                  - {object: public.orders, mode: incremental, key: [a]}
                  - {object: public.customers, mode: full}
                """,
        },
        """\
            control/ingestion/erp.yaml:3: mode incremental needs 'cursor': a column that grows with every change
            control/ingestion/erp.yaml:4: mode full needs 'key': the columns that identify a row
            """,
    ),
    "masked cursor": (
        {
            "control/ingestion/erp.yaml": """\
                source: erp
                tables:
                  - object: public.orders
                    mode: incremental
                    key: [a]
                    cursor: at
                    columns: {at: {mask: full}}
                  - {object: public.customers, mode: append}
                """,
        },
        """\
            control/ingestion/erp.yaml:3: column 'at' orders or flags rows and so cannot be masked
            """,
    ),
    "missing table name": (
        {
            "control/ingestion/erp.yaml": """\
                source: erp
                tables:
                  - {object: orders.csv, mode: append, table: orders}
                  - {object: public.customers, mode: append}
                  - {object: 'lists/*.csv', mode: append}
                  - {object: lists.csv, mode: append}
                """,
        },
        """\
            control/ingestion/erp.yaml:5: 'table' is missing
              Name of the bronze table; default: the last part of the object, if that is a name.
            control/ingestion/erp.yaml:6: 'table' is missing
              Name of the bronze table; default: the last part of the object, if that is a name.
            """,
    ),
    "a bad name": (
        {
            "control/ingestion/erp.yaml": """\
                source: erp
                tables:
                  - {object: public.orders, mode: append, table: 'Orders; drop table x'}
                  - {object: public.customers, mode: append}
                """,
        },
        """\
            control/ingestion/erp.yaml:3: 'table': must be lower case letters, digits and _, start with a letter, at most 63 long
            """,
    ),
    "workstream in an entry": (
        {
            "control/ingestion/erp.yaml": """\
                source: erp
                tables:
                  - {object: public.orders, mode: append, workstream: hr}
                  - {object: public.customers, mode: append}
                """,
        },
        """\
            control/ingestion/erp.yaml:3: unknown key 'workstream'
              'workstream' is written once, at the top of the file
            """,
    ),
    "unknown workstream": (
        {
            "control/ingestion/erp.yaml": """\
                workstream: epr
                source: erp
                tables:
                  - {object: public.orders, mode: append}
                  - {object: public.customers, mode: append}
                """,
        },
        """\
            control/ingestion/erp.yaml:1: unknown workstream 'epr'
              known workstreams of this location: erp
              did you mean 'erp'?
            """,
    ),
    "no list": (
        {
            "control/ingestion/erp.yaml": """\
                source: erp
                tables:
                  object: public.orders
                """,
        },
        """\
            control/ingestion/erp.yaml:2: 'tables': expected a list of tables, got a mapping
            """,
    ),
    "an entry that is a text": (
        {
            "control/ingestion/erp.yaml": """\
                source: erp
                tables:
                  - public.orders
                  - {object: public.customers, mode: append}
                """,
        },
        """\
            control/ingestion/erp.yaml:3: expected a table: a mapping with object, query, filter, …, got a text
            """,
    ),
    "a password in clear": (
        {
            "control/connections.yaml": """\
                connections:
                  - {name: erp, type: server, host: a, password: hunter2}
                  - {name: reports, type: service, tenant: x}
                """,
        },
        """\
            control/connections.yaml:2: 'password': expected {secret: <workstream>/<name>}, got a text
              a secret's value is never written in a file; the name is looked up in the secret store
            """,
    ),
    "another's secret": (
        {
            "control/connections.yaml": """\
                connections:
                  - name: erp
                    type: server
                    host: a
                    password: {secret: hr/reader}
                  - {name: reports, type: service, tenant: x}
                """,
        },
        """\
            control/connections.yaml:2: secret 'hr/reader' is not one of workstream 'erp'
              a workstream uses its own secrets: erp/<name>
            """,
    ),
    "a secret's typo": (
        {
            "control/connections.yaml": """\
                connections:
                  - name: erp
                    type: server
                    host: a
                    password: {secert: hr/reader}
                  - {name: reports, type: service, tenant: x}
                """,
        },
        """\
            control/connections.yaml:5: 'secret' is missing
              Name of the secret: <workstream>/<name>.
            control/connections.yaml:5: unknown key 'secert'
              known keys: secret
              did you mean 'secret'?
            """,
    ),
    "port": (
        {
            "control/connections.yaml": """\
                connections:
                  - {name: erp, type: server, host: a, port: '5432', password: {secret: erp/a}}
                  - {name: reports, type: service, tenant: x}
                  - {name: two, type: server, host: a, port: 70000, password: {secret: erp/a}, max_concurrent: 0}
                """,
        },
        """\
            control/connections.yaml:2: 'port': expected a whole number, got a text
            control/connections.yaml:4: 'max_concurrent' must be at least 1
            control/connections.yaml:4: 'port' must be at most 65535
            """,
    ),
    "missing option": (
        {
            "control/connections.yaml": """\
                connections:
                  - {name: erp, type: server}
                  - {name: reports, type: service, tenant: x}
                """,
        },
        """\
            control/connections.yaml:2: 'host' is missing
            control/connections.yaml:2: 'password' is missing
            """,
    ),
    "broken plug-in": (
        {
            "control/connections.yaml": """\
                connections:
                  - {name: erp, type: broken}
                  - {name: reports, type: service, tenant: x}
                """,
        },
        """\
            control/connections.yaml:2: source 'broken' cannot be loaded: No module named 'driver'
              install what it needs, then try again
            """,
    ),
    "a page as a connection": (
        {
            "control/connections.yaml": """\
                connections:
                  - {name: erp, type: page}
                  - {name: reports, type: service, tenant: x}
                """,
        },
        """\
            control/connections.yaml:2: a dashboard of type 'page' needs no connection
            control/ingestion/erp.yaml:1: connection 'erp' is a dashboard service (type page), not a source
            """,
    ),
    "a service as a source": (
        {
            "control/ingestion/erp.yaml": """\
                source: reports
                tables:
                  - {object: public.orders, mode: append}
                  - {object: public.customers, mode: append}
                """,
        },
        """\
            control/ingestion/erp.yaml:1: connection 'reports' is a dashboard service (type service), not a source
            """,
    ),
    "object options": (
        {
            "control/ingestion/lists.yaml": """\
                source: lists
                tables:
                  - {object: a, mode: append, options: {fromat: csv}}
                """,
        },
        """\
            control/ingestion/lists.yaml:3: unknown key 'fromat'
              known keys: format
              did you mean 'format'?
            """,
    ),
    "unknown variable": (
        {
            "control/connections.yaml": """\
                connections:
                  - {name: erp, type: folder, root: '${var.databse}'}
                  - {name: reports, type: service, tenant: '${env.stat}/${var.x'}
                """,
        },
        """\
            control/connections.yaml:2: unknown variable 'var.databse'
              known variables: env.state, location.root, var.database, var.port
              did you mean 'var.database'?
            control/connections.yaml:3: a reference '${' is not closed
              write ${var.name}, or $${ for a literal ${
            control/connections.yaml:3: unknown variable 'env.stat'
              known variables: env.state, location.root, var.database, var.port
              did you mean 'env.state'?
            """,
    ),
    "variable without value": (
        {
            "control/variables.yaml": """\
                variables:
                  database: {prod: x}
                  port: {default: 1}
                """,
        },
        """\
            control/connections.yaml:9: variable 'var.database' has no value in this environment
              give it one, or a default
            """,
    ),
    "bad variables": (
        {
            "control/variables.yaml": """\
                variables:
                  database: x
                  port: {default: [1]}
                  Big: {default: 1}
                """,
        },
        """\
            control/variables.yaml:2: 'database': expected a mapping such as {default: …, prod: …}, got a text
            control/variables.yaml:3: 'default': expected a text or a whole number or a number or true or false, got a list
            control/variables.yaml:4: 'name': must be lower case letters, digits and _, start with a letter, at most 63 long
            """,
    ),
    "dangling reference": (
        {
            "control/refresh.yaml": """\
                dashboards:
                  - {name: overview, type: page, shows: [silver.order_total, gold.forecast, gold]}
                """,
        },
        """\
            control/refresh.yaml:2: 'shows' (entry 3): must be written layer.name or workstream.layer.name, in lower case letters, digits and _
            """,
    ),
    "dangling in sql": (
        {
            "sql/order_totals.sql": """\
                select *
                from bronze.ordrs
                where x > $lowest
                """,
        },
        """\
            control/processing/silver.yaml:2: unknown table 'bronze.ordrs'
              known tables in bronze: bronze.customers, bronze.orders
              did you mean 'bronze.orders'?
            """,
    ),
    "a cycle": (
        {
            "control/processing/silver.yaml": """\
                steps:
                - {name: a, layer: silver, kind: python, function: 'sales.steps:train', depends_on: [silver.b]}
                - {name: b, layer: silver, kind: python, function: 'sales.steps:train', depends_on: [silver.c]}
                - {name: c, layer: silver, kind: python, function: 'sales.steps:train', depends_on: [silver.a]}
                - {name: order_totals, layer: silver, kind: python, function: 'sales.steps:train'}
                - {name: forecast, layer: gold, kind: python, function: 'sales.steps:train', depends_on: [gold.forecast]}
                """,
        },
        """\
            control/processing/silver.yaml:2: tables are made from each other: silver.a → silver.b → silver.c → silver.a
              an arrow means 'reads'; take one of them away
            control/processing/silver.yaml:6: a table is made from itself: gold.forecast → gold.forecast
              an arrow means 'reads'; take one of them away
            """,
    ),
    "two tables": (
        {
            "control/ingestion/more.yaml": """\
                source: erp
                tables:
                  - {object: archive.orders, mode: append}
                """,
        },
        """\
            control/ingestion/more.yaml:3: table 'bronze.orders' is made twice
              first declared at control/ingestion/erp.yaml:9
            """,
    ),
    "two dashboards": (
        {
            "control/refresh/more.yaml": """\
                dashboards:
                  - {name: overview, type: page, shows: [gold.forecast]}
                """,
        },
        """\
            control/refresh.yaml:2: dashboard 'overview' is declared twice
              first declared at control/refresh/more.yaml:2
            """,
    ),
    "two connections": (
        {
            "control/connections/more.yaml": """\
                connections:
                  - {name: erp, type: folder, root: x}
                """,
        },
        """\
            control/connections.yaml:2: connection 'erp' is declared twice
              first declared at control/connections/more.yaml:2
            """,
    ),
    "two locations": (
        {
            "control/location/more.yaml": """\
                location: x
                """,
        },
        """\
            control/location/more.yaml:1: 'workstreams' is missing
            control/location.yaml:1: a location has one such file
              the first is control/location/more.yaml
            """,
    ),
    "no location": (
        {
            "control/location.yaml": None,
        },
        """\
            control/location.yaml: there is no such file
              it names the location and its workstreams:
              location: <name>
              workstreams: [{name: <name>, owners: [team:<name>]}]
            """,
    ),
    "location faults": (
        {
            "control/location.yaml": """\
                location: Sales
                workstreams:
                  - name: erp
                    owners: [me]
                    schedule: {cron: '61 * * * *', timezone: Europe/Amsterdm}
                """,
        },
        """\
            control/location.yaml:1: 'location': must be lower case letters, digits and _, start with a letter, at most 63 long
            control/location.yaml:4: 'owners' (entry 1): must be an e-mail address or team:<name>
            """,
    ),
    "schedule faults": (
        {
            "control/location.yaml": """\
                location: sales
                workstreams:
                  - name: erp
                    owners: [team:x]
                    schedule:
                      cron: '0 0 31 2 *'
                      timezone: Europe/Amsterdm
                  - {name: erp, owners: ['team:x']}
                """,
        },
        """\
            control/location.yaml:6: cron '0 0 31 2 *' never comes: no such day in these months
              an example: "0 6 * * *" is every day at six
            control/location.yaml:7: unknown time zone 'Europe/Amsterdm'
              did you mean 'Europe/Amsterdam'?
            control/location.yaml:8: workstream 'erp' is declared twice
              first declared at control/location.yaml:3
            """,
    ),
    "no owners": (
        {
            "control/location.yaml": """\
                location: sales
                workstreams:
                  - {name: erp, owners: []}
                """,
        },
        """\
            control/location.yaml:3: 'owners' needs at least 1 entry
              E-mail addresses, or team:<name>.
            """,
    ),
    "two workstreams": (
        {
            "control/location.yaml": """\
                location: sales
                workstreams:
                  - {name: erp, owners: ['team:x']}
                  - {name: hr, owners: ['team:x']}
                """,
        },
        """\
            control/connections.yaml:1: 'workstream' is missing
              known workstreams of this location: erp, hr
            control/ingestion/erp.yaml:1: 'workstream' is missing
              known workstreams of this location: erp, hr
            control/processing/silver.yaml:1: 'workstream' is missing
              known workstreams of this location: erp, hr
            control/refresh.yaml:1: 'workstream' is missing
              known workstreams of this location: erp, hr
            """,
    ),
    "not a select": (
        {
            "sql/order_totals.sql": """\
                delete from bronze.orders
                """,
        },
        """\
            sql/order_totals.sql:1: one SELECT is expected, not DELETE
              it is the query of erp.silver.order_totals
            """,
    ),
    "bad sql": (
        {
            "sql/order_totals.sql": """\
                select *
                from bronze.orders
                where x > $lowest and (
                """,
        },
        """\
            sql/order_totals.sql:4: cannot be read as SQL: something is missing in PAREN near '('
              it is the query of erp.silver.order_totals
            """,
    ),
    "two statements": (
        {
            "sql/order_totals.sql": """\
                select 1;
                select 2
                """,
        },
        """\
            sql/order_totals.sql:2: one SELECT is expected, 2 statements are there
              it is the query of erp.silver.order_totals
            """,
    ),
    "bare table": (
        {
            "sql/order_totals.sql": """\
                select * from
                orders where x > $lowest
                """,
        },
        """\
            sql/order_totals.sql:2: 'orders' is no table: write layer.name or workstream.layer.name
              it is the query of erp.silver.order_totals
            """,
    ),
    "reads a file": (
        {
            "sql/order_totals.sql": """\
                select *
                from read_csv('x.csv') where x > $lowest
                """,
        },
        """\
            sql/order_totals.sql:2: table function 'read_csv' is not allowed; allowed are generate_series, json_each, json_tree, range, repeat, unnest
              it is the query of erp.silver.order_totals
            """,
    ),
    "depends_on differs": (
        {
            "control/processing/silver.yaml": """\
                steps:
                - {name: order_totals, layer: silver, kind: sql, sql: sql/order_totals.sql, variables: {lowst: 1}, depends_on: [bronze.orders, silver.x]}
                - {name: forecast, layer: gold, kind: python, function: 'sales.steps:train'}
                """,
        },
        """\
            control/processing/silver.yaml:2: depends_on lists 'silver.x', which the query does not read
              see sql/order_totals.sql
              remove it, or leave depends_on out
            control/processing/silver.yaml:2: the query reads 'bronze.customers', which depends_on does not list
              see sql/order_totals.sql
              add it, or leave depends_on out
            control/processing/silver.yaml:2: unknown table 'silver.x'
              known tables in silver: silver.order_totals
            control/processing/silver.yaml:2: variable 'lowest' is not declared
              sql/order_totals.sql uses $lowest
              did you mean 'lowst'?
            control/processing/silver.yaml:2: variable 'lowst' is not used by the query
              looked for $lowst in sql/order_totals.sql
            """,
    ),
    "functions": (
        {
            "control/processing/silver.yaml": """\
                steps:
                - {name: order_totals, layer: silver, kind: python, function: 'sales.steps:trian'}
                - {name: forecast, layer: gold, kind: python, function: 'sales.stepz:train'}
                - {name: x, layer: gold, kind: python, function: 'sales.steps.train'}
                - {name: y, layer: gold, kind: python, function: 'sales.steps:later'}
                """,
        },
        """\
            control/processing/silver.yaml:2: there is no function 'trian' in steps.py
              known functions there: train
              did you mean 'train'?
            control/processing/silver.yaml:3: there is no module 'sales.stepz'
              looked in {folder} and in the installed packages
            control/processing/silver.yaml:4: function 'sales.steps.train' must be written package.module:function
            control/processing/silver.yaml:5: 'later' in steps.py is an async function; a step runs a plain function
            """,
    ),
    "broken python": (
        {
            "steps.py": """\
                def train(:
                """,
        },
        """\
            steps.py:1: is not valid Python: invalid syntax
              erp.gold.forecast runs it
            """,
    ),
    "kind mismatch": (
        {
            "control/processing/silver.yaml": """\
                steps:
                - {name: order_totals, layer: silver, kind: sql, function: 'a:b'}
                - {name: forecast, layer: bronze, kind: python, function: 'sales.steps:train'}
                """,
        },
        """\
            control/processing/silver.yaml:2: a step of kind sql needs 'sql'
            control/processing/silver.yaml:3: layer 'bronze' belongs to the platform; use silver, gold or a name of your own
            """,
    ),
    "mask in a step": (
        {
            "control/processing/silver.yaml": """\
                steps:
                - name: order_totals
                  layer: silver
                  kind: python
                  function: 'sales.steps:train'
                  columns: {x: {mask: full}}
                - {name: forecast, layer: gold, kind: python, function: 'sales.steps:train'}
                """,
        },
        """\
            control/processing/silver.yaml:2: column 'x': masks are applied when a table is ingested, not by a step
            """,
    ),
    "dashboard faults": (
        {
            "control/refresh.yaml": """\
                dashboards:
                  - {name: a, type: pgae, shows: [gold.forecast]}
                  - {name: b, type: page, connection: reports, shows: [gold.forecast], color: red}
                  - {name: c, type: service, shows: [gold.forecast]}
                  - {name: d, type: service, connection: erp, shows: [gold.forecast]}
                  - {name: e, type: service, connection: report, shows: [gold.forecast]}
                  - {name: f, type: broken_page, shows: [gold.forecast, gold.forecast]}
                  - {name: g, type: page, shows: []}
                """,
        },
        """\
            control/refresh.yaml:2: unknown dashboard 'pgae'
              known dashboards: broken_page, page, service
              did you mean 'page'?
            control/refresh.yaml:3: a dashboard of type 'page' needs no connection
              remove it
            control/refresh.yaml:3: unknown key 'color'
              known keys: colour
              did you mean 'colour'?
            control/refresh.yaml:4: a dashboard of type 'service' needs 'connection'
              name a connection of type service in control/connections.yaml
            control/refresh.yaml:5: connection 'erp' is of type server; the dashboard is of type service
            control/refresh.yaml:6: unknown connection 'report'
              known connections of workstream 'erp': erp, lists, reports
              did you mean 'reports'?
            control/refresh.yaml:7: dashboard 'broken_page' cannot be loaded: No module named 'driver'
              install what it needs, then try again
            control/refresh.yaml:7: table 'gold.forecast' stands twice
            control/refresh.yaml:8: 'shows' needs at least 1 entry
              Tables: layer.name or workstream.layer.name.
            """,
    ),
    "no dbt project": (
        {
            "control/dbt.yaml": """\
                projects:
                  - {name: a, project: ../nowhere}
                """,
        },
        """\
            control/dbt.yaml:2: there is no dbt project in '../nowhere'
              looked for {folder}/nowhere/dbt_project.yml
            """,
    ),
    "tags and owners": (
        {
            "control/ingestion/erp.yaml": """\
                source: erp
                tables:
                  - object: public.orders
                    mode: append
                    tags: {team: 'a b'}
                    owners: [Jane]
                  - {object: public.customers, mode: full, key: [a, a]}
                  - {object: x, mode: full, key: [_batch_id]}
                """,
        },
        """\
            control/ingestion/erp.yaml:5: 'tags': keys and values must be letters, digits, _, - and ., at most 63 long
            control/ingestion/erp.yaml:6: 'owners' (entry 1): must be an e-mail address or team:<name>
            control/ingestion/erp.yaml:7: 'key': names a column twice
            control/ingestion/erp.yaml:8: column '_batch_id' is added by the platform; a source's column has another name
            """,
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_where_it_is_and_what_to_do(package, name: str) -> None:
    files, expected = FAULTS[name]
    package.write(files)
    folder = str(package.root.parent)
    assert package.faults() == dedent(expected).rstrip("\n").replace("{folder}", folder)


def test_a_value_in_the_place_of_a_secret_is_never_shown(package) -> None:
    canary = "hunter2hunter2"
    for connection in (
        f"{{name: erp, type: server, host: a, password: {canary}}}",
        f"{{name: erp, type: server, host: a, password: [{canary}]}}",
        f"{{name: erp, type: server, host: a, password: {{secret: [{canary}]}}}}",
        f"{{name: erp, type: server, host: a, password: {{value: {canary}}}}}",
        f"{{name: erp, type: server, host: a, password: !secret {canary}}}",
        f"{{name: erp, type: server, host: a, password: &x {canary}}}",
        f"{{name: erp, type: server, host: a, password: *{canary}}}",
        f"{{name: erp, type: server, host: a, password: @{canary}}}",
        f"{{name: erp, type: server, host: a, password: '{canary}}}",
        f"{{name: erp, type: server, host: a, password: ${{var.port}}{canary}}}",
        f"{{name: erp, type: server, host: a, pasword: {canary}}}",
        f"{{name: erp, type: folder, host: a, password: {canary}}}",
    ):
        package.write({"control/connections.yaml": f"connections:\n  - {connection}\n"})
        assert canary not in package.faults()


def test_faults_of_several_files_come_together_in_order(package) -> None:
    package.write(
        {
            "control/refresh.yaml": "dashboards: 5\n",
            "control/connections.yaml": "connections: [{name: A}]\n",
            "control/ingestion/erp.yaml": "source: erp\ntables: [{object: a.b, mode: fulll}]\n",
            "control/ingest.yaml": "",
        }
    )
    lines = [line for line in package.faults().splitlines() if not line.startswith(" ")]
    assert [line.partition(": ")[0] for line in lines] == [
        "control/connections.yaml:1",
        "control/connections.yaml:1",
        "control/ingest.yaml",
        "control/ingestion/erp.yaml:2",
        "control/processing/silver.yaml:2",
        "control/processing/silver.yaml:2",
        "control/refresh.yaml:1",
    ]


def test_of_a_file_full_of_faults_the_first_hundred_are_told(package) -> None:
    package.write({"control/refresh.yaml": "dashboards:\n" + "  - 5\n" * 5000})
    text = package.faults()
    assert text.count("expected a dashboard") == 100
    assert "control/refresh.yaml: has more than 100 problems; the others are not shown" in text


def test_a_wrong_folder_is_told(package) -> None:
    package.control.rename(package.root / "controls")
    assert package.faults() == "control: there is no such folder\n  did you mean 'controls'?"


def test_an_empty_folder_is_told(package) -> None:
    for file in package.control.rglob("*.yaml"):
        file.unlink()
    assert package.faults().startswith("control/location.yaml: there is no such file\n")

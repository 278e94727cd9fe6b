-- A row more with each build.
{{ config(materialized='incremental') }}
select '{{ invocation_id }}' as build

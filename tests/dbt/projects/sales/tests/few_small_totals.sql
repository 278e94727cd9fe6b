-- One small total is a warning, ten are an error.
{{ config(severity='error', warn_if='>0', error_if='>10') }}
select * from {{ ref('revenue') }} where total < 100

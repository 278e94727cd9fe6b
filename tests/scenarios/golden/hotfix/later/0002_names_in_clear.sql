-- owner: team:crm
-- expires: SOON
-- reason: the auditors ask for names, ticket 902
UPDATE control.ingestion SET columns = '{"email": {"masking": {"mask": "hash", "options": {"domain": "email"}}}}'
WHERE workstream = 'crm' AND name = 'customers';

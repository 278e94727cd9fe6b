-- owner: team:crm
-- expires: SOON
-- reason: the source sends rows two days late, ticket 901
UPDATE control.ingestion SET lookback = '2 days' WHERE workstream = 'crm' AND name = 'orders';

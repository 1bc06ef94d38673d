-- The retention that log groups had before a hold removed it: a row comes before it is removed, and goes when it is set
-- again, or the group is gone.
CREATE TABLE retentiond.log_retention (
    place text NOT NULL,              -- JSON of the service and the region
    log_group text NOT NULL,
    days integer NOT NULL,
    removed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (place, log_group)
);

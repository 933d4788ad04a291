use super::*;

#[test]
fn what_customers_noticed_is_counted_from_the_first_failure() {
    let seen = Experience {
        served: 5,
        failed: 2,
        turned_away: 3,
        outage_began: Some(Timestamp::from_millisecond(1_000).unwrap()),
        last_unserved: Some(Timestamp::from_millisecond(4_000).unwrap()),
        outage_ended: Some(Timestamp::from_millisecond(4_500).unwrap()),
    };
    assert_eq!(
        noticed(&seen, &[]),
        ["5 requests served, 2 failed, 3 met the maintenance page", "from the first failure to posts again:   3.5s"]
    );
    assert_eq!(noticed(&Experience::default(), &[])[1], "no failure at all");
}

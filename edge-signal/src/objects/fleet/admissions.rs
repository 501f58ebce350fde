//! Addresses that nodes may enrol from without a token, in SQL. **One key an admission; it ends by itself.**

use std::net::IpAddr;

use shared::claims::NodeKey;
use shared::control::{AdmitRequest, MAX_ADMITTED};
use worker::{Result, SqlStorageValue, State};

use super::keys::tables;
use crate::refusal::{Reason, Refusal};

/// Whether this can be asked for.
pub(super) fn check(request: &AdmitRequest) -> std::result::Result<(), Refusal> {
    if request.addresses.len() > MAX_ADMITTED {
        let text = format!("at most {MAX_ADMITTED} addresses at once");
        return Err(Refusal::new(Reason::BodyMalformed, &text));
    }
    Ok(())
}

/// Admits addresses until then, each for one key that is not known yet: a machine that was replaced has a new one.
pub(super) fn admit(state: &State, addresses: &[IpAddr], now_secs: u64, until_secs: u64) -> Result<()> {
    let sql = tables(state)?;
    sql.exec("DELETE FROM admission WHERE until <= ?", vec![now_secs.to_string().into()])?;
    for address in addresses {
        let values = [address.to_canonical().to_string(), until_secs.to_string()].map(SqlStorageValue::from);
        sql.exec("INSERT OR REPLACE INTO admission (address, until, key) VALUES (?, ?, NULL)", values.to_vec())?;
    }
    Ok(())
}

/// Whether this key may enrol from there; from then on no other may.
pub(super) fn take(state: &State, from: IpAddr, key: &NodeKey, now_secs: u64) -> Result<bool> {
    let values = [key.x.clone(), from.to_string(), now_secs.to_string(), key.x.clone()].map(SqlStorageValue::from);
    let taken = tables(state)?.exec(
        "UPDATE admission SET key = ? WHERE address = ? AND until > ? AND (key IS NULL OR key = ?)",
        values.to_vec(),
    )?;
    Ok(taken.rows_written() > 0)
}

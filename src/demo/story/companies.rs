//! Companies change their names and sectors, and report what they earn.

use serde_json::json;

use super::{Dice, Told, event, money, time};

const COMPANIES: u64 = 60;
const SECTORS: &[&str] = &["machines", "cloth", "software", "tea"];
const PERIODS: &[&str] = &["2026-08-01", "2026-09-01", "2026-10-01"];

pub fn told() -> Vec<Told> {
    let mut dice = Dice(53);
    let mut told = Vec::new();
    for company in 0..COMPANIES {
        let id = format!("k{company:03}");
        let versions = 1 + dice.roll(3);
        for version in 1..=versions {
            let type_ = if version == 1 { "CompanyAdded" } else { "CompanyModified" };
            let name = format!("Works {}{}", company + 1, if version == 3 { " & Daughters" } else { "" });
            let data = json!({ "company_id": id, "version": version, "name": name, "sector": dice.pick(SECTORS) });
            told.push(event("company", "company.profiles", type_, &id, told.len(), &time(7 + version, company), data));
        }
        for period in PERIODS {
            let data = json!({
                "company_id": id, "period": period, "revision": 1,
                "revenue": money(1_000_000 + dice.roll(90_000_000)), "employees": 1 + dice.roll(400),
            });
            told.push(event(
                "statistics",
                "company.statistics",
                "StatisticsReported",
                &id,
                told.len(),
                &time(12, company),
                data,
            ));
        }
    }
    told
}

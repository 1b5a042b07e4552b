//! Consumer groups on the page: who is in them, how far they have come, and what they gave up, sent
//! back by a button.

use grus_tests::broker::Home;
use grus_tests::browser::Browser;
use serde_json::{Value, json};

use crate::{CELLS, cells, create, json_of, open, produce, unharmed};

/// Presses a button of the page, whose text begins so.
fn press(browser: &Browser, text: &str) {
    let script = "const [text] = arguments; \
                  Array.from(document.querySelectorAll('main button.act')).find((one) => one.textContent.startsWith(text)).click()";
    browser.run(script, &json!(text));
}

#[test]
fn a_group_is_shown_and_its_dead_letters_go_back_by_a_button() {
    let Some(browser) = Browser::start() else { return };
    let home = Home::new();
    let broker = home.start();
    create(&home, "orders");
    open(&browser, &home, "groups");
    let empty = "document.querySelector('main .empty').textContent.startsWith('No group.')";
    browser.wait_for("word that there is none", empty, &Value::Null);
    let bodies = [b"good".to_vec(), b"<script>window.harmed = 4</script>".to_vec(), b"c".to_vec()];
    produce(&home, "orders", &bodies, &[]);
    // The second and the third are given up, with a reason that a page might stumble over.
    let words = ["consume", "orders", "--group", "billing", "--ack", "manual", "--max", "3"];
    let reasons = b"ack\ndead <b>no stock</b>\ndead later\n";
    home.grus_fed(&words, reasons).ok();

    // Its member has left, but the page may have looked before that.
    let settled = format!("{CELLS}[0]?.[7] === '2' && {CELLS}[0][2] === '0'");
    browser.wait_for("group, by itself", &settled, &json!("Groups"));
    let shown = cells(&browser, "Groups");
    assert_eq!(shown[0][..5], ["billing", "cluster", "0", "1", "0"].map(str::to_owned));
    assert_eq!(shown[0][8], "1", "settled");
    browser.run("document.querySelector('table[data-name=Groups] a').click()", &Value::Null);
    browser.wait_for("letters", &format!("{CELLS}.length === 2"), &json!("Dead letters"));
    let letters = json_of(&broker, "/groups/billing/dead-letters");
    let shown = cells(&browser, "Dead letters");
    for (row, letter) in shown.iter().zip(letters["letters"].as_array().unwrap()) {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let from = format!("orders/0 at {}", letter["origin"]["offset"]);
        let body = text(&letter["message"]["body"]["value"]);
        let expected = [text(&letter["letter"]), from, text(&letter["reason"]), body];
        assert_eq!([&row[0], &row[2], &row[4], &row[5]].map(Clone::clone), expected);
    }
    let group = json_of(&broker, "/groups/billing");
    let queue = &group["queueList"][0];
    let row = &cells(&browser, "Group queues")[0];
    let expected = ["orders", "0", "nobody", "3", "3", "0"].map(str::to_owned);
    assert_eq!(row[..6], expected, "{queue}");

    // A member that stays is shown, and gets what is sent back.
    let mut member = home.grus_running(&["consume", "orders", "--group", "billing"]);
    browser.wait_for("member", &format!("{CELLS}[0]?.[4] === '1'"), &json!("Members"));
    press(&browser, "Send back");
    browser.wait_for("one letter", &format!("{CELLS}.length === 1"), &json!("Dead letters"));
    let patience = std::time::Duration::from_mins(1);
    assert_eq!(member.next_line(patience), Some(bodies[1].clone()), "the first of them");
    let once =
        "const whole = document.querySelector('.pager button[data-what=purge]'); whole.click();";
    let asks = browser.run(&format!("{once} return whole.textContent"), &Value::Null);
    assert_eq!(asks, "Sure?");
    let left = json_of(&broker, "/groups/billing/dead-letters");
    assert_eq!(left["letters"].as_array().unwrap().len(), 1, "not at the first press");
    // Once more; twice, if the question is over meanwhile.
    browser.run(&format!("{once} if (whole.textContent === 'Sure?') whole.click();"), &Value::Null);
    let told = "document.querySelector('main p[role=status]').textContent === given";
    browser.wait_for("what was done", told, &json!("1 removed"));
    let left = json_of(&broker, "/groups/billing/dead-letters");
    assert_eq!(left["letters"], json!([]));

    open(&browser, &home, "groups?group=nobody");
    let error = "document.querySelector('main .error')?.textContent";
    assert_eq!(browser.wait_for("error", error, &Value::Null), "there is no group nobody");
    unharmed(&browser, &["404"]);
}

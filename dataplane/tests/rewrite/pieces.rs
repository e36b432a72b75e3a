//! Datagrams that come in fragments: step by step what the kernel sends, which puts them together first.

use crate::recording::cases;
use crate::replay::Director;

#[test]
fn fragments_leave_as_the_kernel_s_do_in_any_order() {
    let mut steps = 0;
    for case in cases().into_iter().filter(|case| case.name.starts_with("frag-")) {
        let mut director = Director::new(&case);
        for (n, step) in case.steps.iter().enumerate() {
            let expected: Vec<_> = step.out.iter().map(|out| out.packet.clone()).collect();
            let sent = director.fragment(&step.packet, &step.out);
            assert_eq!(sent, expected, "{} step {n}: {}", case.name, step.text);
            steps += 1;
        }
    }
    assert_eq!(steps, 12, "DR, NAT and IPIP, three fragments each, IPIP in two orders");
}

//! The reader of message definitions: what it makes of a good one, and that it refuses what would generate a wrong codec.

#[path = "../build/definition.rs"]
mod definition;

use definition::{Definition, Role, Type, bytes_min, fixed_bytes, parse};

const GOOD: &str = "\
# An example.
api 7 Example
versions 1-5
flexible 3+

request
  # Who.
  name     string?2+
  parts    []Part  2-4
    id     uuid
    sizes  []i32  4+

response
  leader   Leader  3+  tag 0
    epoch  i32  = -1
  error    i16  5
";

fn read(text: &str) -> Definition {
    parse(text).expect("a good definition")
}

#[test]
fn a_definition_says_what_it_says() {
    let example = read(GOOD);
    assert_eq!(
        (example.key, example.name.as_str(), example.doc.as_slice()),
        (Some(7), "Example", &["An example.".into()][..])
    );
    assert_eq!((example.versions, example.flexible_from), (1..=5, Some(3)));
    let [request, response] = &example.messages[..] else { panic!("two messages") };
    assert_eq!((request.role, response.role), (Role::Request, Role::Response));
    assert_eq!((request.root().name.as_str(), response.root().name.as_str()), ("ExampleRequest", "ExampleResponse"));
    assert_eq!(request.root().doc, example.doc);
    let [name, parts] = &request.root().fields[..] else { panic!("two fields") };
    assert_eq!((name.doc.as_slice(), &name.versions, &name.nullable), (&["Who.".into()][..], &(1..=5), &Some(2..=5)));
    assert_eq!(parts.ty, Type::Array(Box::new(Type::Struct("Part".into()))));
    let part = request.find("Part");
    assert_eq!((&part.versions, &part.fields[1].versions), (&(2..=4), &(4..=4)), "cut to the field that holds it");
    let [leader, error] = &response.root().fields[..] else { panic!("two fields") };
    assert_eq!((leader.tag, &error.versions), (Some(0), &(5..=5)));
    assert_eq!(response.find("Leader").fields[0].default.as_deref(), Some("-1"));
}

#[test]
fn the_fewest_bytes_of_an_element_are_those_of_its_leanest_version() {
    let example = read(GOOD);
    let request = &example.messages[0];
    let part = Type::Struct("Part".into());
    // v2 has the id only; v3 adds the tagged fields' count, v4 the sizes' count.
    assert_eq!(bytes_min(&part, request, example.flexible_from), 16);
    assert_eq!(bytes_min(&part, request, Some(2)), 17);
    assert_eq!((fixed_bytes(&Type::I64), fixed_bytes(&Type::Bytes)), (Some(8), None));
}

#[test]
fn a_definition_that_makes_no_sense_is_refused() {
    let wrong = [
        ("api 7", "api seven", "a key is a number"),
        ("versions 1-5", "versions 5-1", "no version range"),
        ("flexible 3+", "flexible 3", "expected `flexible"),
        ("flexible 3+", "flexible 4+", "tagged before the flexible version"),
        ("flexible 3+", "flexible none", "tagged before the flexible version"),
        ("tag 0", "tag 1", "tags count from 0"),
        ("string?2+", "strnig", "unknown type"),
        ("string?2+", "i32?", "cannot be null"),
        ("string?2+", "string?0-0", "null in versions without the field"),
        ("[]Part  2-4", "[]Part  6+", "versions outside"),
        ("    id     uuid\n    sizes  []i32  4+\n", "", "a struct without fields"),
        ("    sizes", "   sizes", "does not stand under any field"),
        ("  error    i16  5", "  error", "expected `name type`"),
        ("= -1", "= -1 0", "expected `name type versions tag N = default`"),
        ("response", "answer", "expected `request` and `response`"),
        ("api 7 Example", "struct Example", "`fields` in a struct"),
    ];
    for (good, bad, expected) in wrong {
        assert!(GOOD.contains(good));
        let error = parse(&GOOD.replace(good, bad)).expect_err(bad);
        assert!(error.contains(expected), "{bad}: {error}");
    }
    let request_only = GOOD.split("response").next().expect("the front");
    assert!(parse(request_only).expect_err("one section").contains("a section is missing"));
}

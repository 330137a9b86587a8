//! Writes the Rust of the messages: structs, defaults, decoders, encoders. What the wire's primitives are is `Reader`'s business.

use crate::definition::{Definition, Field, Message, Role, Struct, Type, Versions, bytes_min};
use std::fmt::Write;

/// What the code of one message needs to know about it.
struct Context<'d> {
    message: &'d Message,
    flexible_from: Option<i16>,
}

/// All of `messages.rs`.
pub fn generate(definitions: &[Definition]) -> String {
    let mut out = String::from("// Made by build.rs from src/protocol/messages; edit those.\n\n");
    for definition in definitions {
        let module = snake_case(&definition.name);
        docs(&mut out, "", &definition.doc);
        let _ = writeln!(out, "pub mod {module} {{");
        out.push_str("    #[allow(unused_imports)]\n    use crate::protocol::prelude::*;\n\n");
        for message in &definition.messages {
            let context = Context { message, flexible_from: definition.flexible_from };
            message.structs.iter().for_each(|owner| context.struct_code(&mut out, owner));
            context.message_code(&mut out, definition);
        }
        out.push_str("}\n");
        for message in &definition.messages {
            let _ = writeln!(out, "pub use {module}::{};", message.root().name);
        }
        out.push('\n');
    }
    api_key_code(&mut out, definitions);
    out
}

/// `TopicProduceData` becomes `topic_produce_data`.
pub fn snake_case(name: &str) -> String {
    let mut out = String::new();
    for (index, c) in name.char_indices() {
        if c.is_ascii_uppercase() && index > 0 {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// `versions` as a condition on `version`; `None` where it always holds within `outer`.
pub fn condition(versions: &Versions, outer: &Versions) -> Option<String> {
    let from_start = versions.start() <= outer.start();
    let to_end = versions.end() >= outer.end();
    match (from_start, to_end) {
        (true, true) => None,
        (false, true) => Some(format!("version >= {}", versions.start())),
        (true, false) => Some(format!("version <= {}", versions.end())),
        (false, false) => Some(format!("({}..={}).contains(&version)", versions.start(), versions.end())),
    }
}

fn docs(out: &mut String, indent: &str, lines: &[String]) {
    for line in lines {
        let _ = writeln!(out, "{indent}/// {line}");
    }
}

impl Context<'_> {
    fn borrows(&self, ty: &Type) -> bool {
        match ty {
            Type::String | Type::Text | Type::String16 | Type::Bytes | Type::Records => true,
            Type::Array(item) => self.borrows(item),
            Type::Struct(name) => self.message.find(name).fields.iter().any(|f| self.borrows(&f.ty)),
            _ => false,
        }
    }

    /// The name of a struct with its lifetime, if it has one.
    fn struct_type(&self, name: &str, lifetime: &str) -> String {
        let borrows = self.borrows(&Type::Struct(name.into()));
        if borrows { format!("{name}<{lifetime}>") } else { name.into() }
    }

    fn is_response_records(&self, ty: &Type) -> bool {
        *ty == Type::Records && self.message.role == Role::Response
    }

    fn rust_type(&self, ty: &Type) -> String {
        match ty {
            Type::Bool => "bool".into(),
            Type::I8 => "i8".into(),
            Type::I16 => "i16".into(),
            Type::U16 => "u16".into(),
            Type::I32 => "i32".into(),
            Type::I64 => "i64".into(),
            Type::F64 => "f64".into(),
            Type::Uuid => "TopicId".into(),
            Type::String | Type::String16 => "&'a str".into(),
            Type::Text => "Cow<'a, str>".into(),
            Type::Records if self.is_response_records(ty) => "Records<'a>".into(),
            Type::Bytes | Type::Records => "&'a [u8]".into(),
            Type::Array(item) => format!("Vec<{}>", self.rust_type(item)),
            Type::Struct(name) => self.struct_type(name, "'a"),
        }
    }

    fn is_option(&self, field: &Field) -> bool {
        field.nullable.is_some() && !self.is_response_records(&field.ty)
    }

    fn default_value(&self, field: &Field) -> String {
        match (&field.default, &field.ty) {
            (Some(value), _) => value.clone(),
            (None, _) if self.is_option(field) => "None".into(),
            (None, Type::Bool) => "false".into(),
            (None, Type::I8 | Type::I16 | Type::U16 | Type::I32 | Type::I64) => "0".into(),
            (None, Type::F64) => "0.0".into(),
            (None, Type::Uuid) => "TopicId::ZERO".into(),
            (None, Type::String | Type::String16) => "\"\"".into(),
            (None, Type::Text) => "Cow::Borrowed(\"\")".into(),
            (None, Type::Records) if self.is_response_records(&field.ty) => "Records::default()".into(),
            (None, Type::Bytes | Type::Records) => "&[]".into(),
            (None, Type::Array(_)) => "Vec::new()".into(),
            (None, Type::Struct(name)) => format!("{name}::default()"),
        }
    }

    fn struct_code(&self, out: &mut String, owner: &Struct) {
        let name = &owner.name;
        docs(out, "    ", &owner.doc);
        let plain_default = owner.fields.iter().all(|field| field.default.is_none());
        let derives = if plain_default { "Clone, PartialEq, Debug, Default" } else { "Clone, PartialEq, Debug" };
        let _ = writeln!(out, "    #[derive({derives})]\n    pub struct {} {{", self.struct_type(name, "'a"));
        for field in &owner.fields {
            self.field_docs(out, field, owner);
            let ty = self.rust_type(&field.ty);
            let ty = if self.is_option(field) { format!("Option<{ty}>") } else { ty };
            let _ = writeln!(out, "        pub {}: {ty},", field.name);
        }
        out.push_str("    }\n\n");
        if !plain_default {
            let _ = writeln!(out, "    impl Default for {} {{", self.struct_type(name, "'_"));
            out.push_str("        fn default() -> Self {\n            Self {\n");
            for field in &owner.fields {
                let _ = writeln!(out, "                {}: {},", field.name, self.default_value(field));
            }
            out.push_str("            }\n        }\n    }\n\n");
        }
        let decode = self.decode_body(owner);
        let encode = self.encode_body(owner);
        let borrows = self.borrows(&Type::Struct(name.clone()));
        let generics = if borrows { "<'a>" } else { "" };
        let reader = if borrows { "Reader<'a>" } else { "Reader<'_>" };
        let _ = writeln!(out, "    impl{generics} {} {{", self.struct_type(name, "'a"));
        let version = parameter("version", &decode);
        let _ = writeln!(out, "        fn read(r: &mut {reader}, {version}: i16) -> Result<Self, DecodeError> {{");
        let _ = write!(out, "{decode}        }}\n\n");
        let (version, writer) = (parameter("version", &encode), parameter("w", &encode));
        let _ = writeln!(out, "        fn write(&self, {writer}: &mut Writer, {version}: i16) {{");
        let _ = write!(out, "{encode}        }}\n    }}\n\n");
    }

    fn field_docs(&self, out: &mut String, field: &Field, owner: &Struct) {
        docs(out, "        ", &field.doc);
        if field.versions != owner.versions {
            let (first, last) = (field.versions.start(), field.versions.end());
            let range =
                if last == owner.versions.end() { format!("from v{first}") } else { format!("v{first}–v{last}") };
            let _ = writeln!(out, "        /// On the wire {range}.");
        }
    }

    /// `let flexible = …;` where `code` asks for it.
    fn flexible_line(&self, owner: &Struct, code: &str) -> String {
        let line = |value: String| format!("            let flexible = {value};\n");
        match self.flexible_from {
            _ if !mentions(code, "flexible") => String::new(),
            None => line("false".into()),
            Some(from) => line(condition(&(from..=i16::MAX), &owner.versions).unwrap_or_else(|| "true".into())),
        }
    }

    fn has_tagged_section(&self, owner: &Struct) -> bool {
        self.flexible_from.is_some_and(|from| from <= *owner.versions.end())
    }

    fn decode_body(&self, owner: &Struct) -> String {
        let mut code = String::new();
        for field in owner.fields.iter().filter(|f| f.tag.is_none()) {
            let value = self.decode_field(field);
            let _ = match condition(&field.versions, &owner.versions) {
                None => writeln!(code, "            let {} = {value};", field.name),
                Some(condition) => {
                    let default = self.default_value(field);
                    writeln!(
                        code,
                        "            let {} = if {condition} {{ {value} }} else {{ {default} }};",
                        field.name
                    )
                }
            };
        }
        let tagged: Vec<&Field> = owner.fields.iter().filter(|f| f.tag.is_some()).collect();
        for field in &tagged {
            let _ = writeln!(code, "            let mut {} = {};", field.name, self.default_value(field));
        }
        if !tagged.is_empty() {
            code.push_str("            if flexible {\n                r.tagged_fields(|r, tag| {\n                    match tag {\n");
            for field in &tagged {
                let tag = field.tag.expect("tagged");
                let guard = self.tag_condition(field).map_or(String::new(), |c| format!(" if {c}"));
                let _ = writeln!(
                    code,
                    "                        {tag}{guard} => {} = {},",
                    field.name,
                    self.decode_field(field)
                );
            }
            code.push_str("                        _ => return Ok(false),\n                    }\n");
            code.push_str("                    Ok(true)\n                })?;\n            }\n");
        } else if self.has_tagged_section(owner) {
            code.push_str("            if flexible {\n                r.skip_tagged_fields()?;\n            }\n");
        }
        let names: Vec<&str> = owner.fields.iter().map(|f| f.name.as_str()).collect();
        let _ = writeln!(code, "            Ok(Self {{ {} }})", names.join(", "));
        self.flexible_line(owner, &code) + &code
    }

    /// The condition of a tagged field, given that the version is flexible.
    fn tag_condition(&self, field: &Field) -> Option<String> {
        let from = self.flexible_from.expect("checked by the parser");
        condition(&field.versions, &(from..=*self.message.root().versions.end()))
    }

    fn decode_field(&self, field: &Field) -> String {
        let Some(nullable) = &field.nullable else { return self.decode_value(&field.ty) };
        if self.is_response_records(&field.ty) {
            return "r.records(flexible)?".into();
        }
        let value = match &field.ty {
            Type::String => "r.nullable_string(flexible)?".into(),
            Type::String16 => "r.nullable_string(false)?".into(),
            Type::Text => "r.nullable_string(flexible)?.map(Cow::Borrowed)".into(),
            Type::Bytes | Type::Records => "r.nullable_bytes(flexible)?".into(),
            Type::Array(item) => self.decode_array("nullable_array", item),
            ty => unreachable!("the parser lets no {ty:?} be null"),
        };
        match condition(nullable, &field.versions) {
            None => value,
            Some(condition) => {
                format!("if {condition} {{ {value} }} else {{ Some({}) }}", self.decode_value(&field.ty))
            }
        }
    }

    fn decode_array(&self, method: &str, item: &Type) -> String {
        let bytes_min = bytes_min(item, self.message, self.flexible_from);
        assert!(bytes_min > 0, "elements without bytes have no bound");
        let element = self.decode_value(item);
        let element = element.strip_suffix('?').map_or(format!("Ok({element})"), str::to_string);
        format!("r.{method}(flexible, {bytes_min}, |r| {element})?")
    }

    fn decode_value(&self, ty: &Type) -> String {
        match ty {
            Type::Bool => "r.bool()?".into(),
            Type::I8 => "r.i8()?".into(),
            Type::I16 => "r.i16()?".into(),
            Type::U16 => "r.u16()?".into(),
            Type::I32 => "r.i32()?".into(),
            Type::I64 => "r.i64()?".into(),
            Type::F64 => "r.f64()?".into(),
            Type::Uuid => "r.uuid()?".into(),
            Type::String => "r.string(flexible)?".into(),
            Type::String16 => "r.string(false)?".into(),
            Type::Text => "Cow::Borrowed(r.string(flexible)?)".into(),
            Type::Records if self.is_response_records(ty) => "r.records(flexible)?".into(),
            Type::Bytes | Type::Records => "r.bytes(flexible)?".into(),
            Type::Array(item) => self.decode_array("array", item),
            Type::Struct(name) => format!("{name}::read(r, version)?"),
        }
    }

    fn encode_body(&self, owner: &Struct) -> String {
        let mut code = String::new();
        for field in owner.fields.iter().filter(|f| f.tag.is_none()) {
            match condition(&field.versions, &owner.versions) {
                None => code += &self.encode_field(field, "            "),
                Some(condition) => {
                    let value = self.encode_field(field, "                ");
                    let _ = writeln!(code, "            if {condition} {{\n{value}            }}");
                }
            }
        }
        if self.has_tagged_section(owner) {
            let tagged: Vec<&Field> = owner.fields.iter().filter(|f| f.tag.is_some()).collect();
            code.push_str("            if flexible {\n");
            code += &self.encode_tagged(&tagged);
            code.push_str("            }\n");
        }
        self.flexible_line(owner, &code) + &code
    }

    fn encode_tagged(&self, tagged: &[&Field]) -> String {
        let mut code = String::new();
        for field in tagged {
            let differs = match &field.ty {
                _ if self.is_option(field) => format!("self.{}.is_some()", field.name),
                Type::Bool if field.default.is_none() => format!("self.{}", field.name),
                Type::Array(_) | Type::String | Type::Bytes => format!("!self.{}.is_empty()", field.name),
                _ => format!("self.{} != {}", field.name, self.default_value(field)),
            };
            let guard = self.tag_condition(field).map_or(String::new(), |condition| format!("{condition} && "));
            let _ = writeln!(code, "                let has_{} = {guard}{differs};", field.name);
        }
        let counts: Vec<String> = tagged.iter().map(|f| format!("u32::from(has_{})", f.name)).collect();
        let count = if counts.is_empty() { "0".into() } else { counts.join(" + ") };
        let _ = writeln!(code, "                w.unsigned_varint({count});");
        for field in tagged {
            let value = self.encode_field(field, "                        ");
            let tag = field.tag.expect("tagged");
            let _ = writeln!(code, "                if has_{} {{", field.name);
            let _ = writeln!(code, "                    w.tagged_field({tag}, |w| {{\n{value}                    }});");
            code.push_str("                }\n");
        }
        code
    }

    fn encode_field(&self, field: &Field, indent: &str) -> String {
        let place = format!("self.{}", field.name);
        if !self.is_option(field) {
            return self.encode_value(&field.ty, &place, indent);
        }
        let nullable = field.nullable.as_ref().expect("an option");
        // Null in a version without null is written as empty.
        let or_empty = |option: String| match condition(nullable, &field.versions) {
            None => option,
            Some(condition) => format!("{option}.or(if {condition} {{ None }} else {{ Some(Default::default()) }})"),
        };
        match &field.ty {
            Type::String => format!("{indent}w.nullable_string({}, flexible);\n", or_empty(place)),
            Type::String16 => format!("{indent}w.nullable_string({}, false);\n", or_empty(place)),
            Type::Text => {
                format!("{indent}w.nullable_string({}, flexible);\n", or_empty(format!("{place}.as_deref()")))
            }
            Type::Bytes | Type::Records => format!("{indent}w.nullable_bytes({}, flexible);\n", or_empty(place)),
            Type::Array(item) => {
                let length = or_empty(format!("{place}.as_ref().map(Vec::len)"));
                let element = self.encode_value(item, "*item", &format!("{indent}    "));
                format!(
                    "{indent}w.length({length}, flexible);\n\
                     {indent}for item in {place}.iter().flatten() {{\n{element}{indent}}}\n"
                )
            }
            ty => unreachable!("the parser lets no {ty:?} be null"),
        }
    }

    fn encode_value(&self, ty: &Type, place: &str, indent: &str) -> String {
        // Methods take their receiver by reference, so that `*item` is just `item` there.
        let receiver = place.trim_start_matches('*');
        match ty {
            Type::Bool => format!("{indent}w.bool({place});\n"),
            Type::I8 => format!("{indent}w.i8({place});\n"),
            Type::I16 if place == "self.error_code" => format!("{indent}w.error_code({place});\n"),
            Type::I16 => format!("{indent}w.i16({place});\n"),
            Type::U16 => format!("{indent}w.u16({place});\n"),
            Type::I32 => format!("{indent}w.i32({place});\n"),
            Type::I64 => format!("{indent}w.i64({place});\n"),
            Type::F64 => format!("{indent}w.f64({place});\n"),
            Type::Uuid => format!("{indent}w.uuid({place});\n"),
            Type::String => format!("{indent}w.string({receiver}, flexible);\n"),
            Type::String16 => format!("{indent}w.string({receiver}, false);\n"),
            Type::Text => format!("{indent}w.string(&{place}, flexible);\n"),
            Type::Records if self.is_response_records(ty) => format!("{indent}w.records(&{place}, flexible);\n"),
            Type::Bytes | Type::Records => format!("{indent}w.bytes_field({receiver}, flexible);\n"),
            Type::Array(item) => {
                let element = self.encode_value(item, "*item", &format!("{indent}    "));
                format!(
                    "{indent}w.length(Some({receiver}.len()), flexible);\n\
                     {indent}for item in &{place} {{\n{element}{indent}}}\n"
                )
            }
            Type::Struct(_) => format!("{indent}{receiver}.write(w, version);\n"),
        }
    }

    fn message_code(&self, out: &mut String, definition: &Definition) {
        let ty = self.struct_type(&self.message.root().name, "'a");
        let (first, last) = definition.versions.clone().into_inner();
        let flexible = definition.flexible_from;
        let _ = write!(
            out,
            "    impl<'a> Message<'a> for {ty} {{
        const VERSIONS: RangeInclusive<i16> = {first}..={last};
        const FLEXIBLE_FROM: Option<i16> = {flexible:?};

        fn decode(reader: &mut Reader<'a>, version: i16) -> Result<Self, DecodeError> {{
            if !({first}..={last}).contains(&version) {{
                return Err(DecodeError::Version);
            }}
            Self::read(reader, version)
        }}

        fn encode(&self, writer: &mut Writer, version: i16) {{
            assert!(({first}..={last}).contains(&version));
            self.write(writer, version);
        }}
    }}

"
        );
        let api = &definition.name;
        let _ = match self.message.role {
            Role::Request => {
                let response = definition.messages.iter().find(|m| m.role == Role::Response).expect("checked");
                let context = Context { message: response, flexible_from: flexible };
                let response = context.struct_type(&response.root().name, "'a");
                write!(
                    out,
                    "    impl<'a> Request<'a> for {ty} {{\n        const API: ApiKey = ApiKey::{api};\n        \
                     type Response = {response};\n    }}\n\n"
                )
            }
            Role::Response => write!(
                out,
                "    impl<'a> Response<'a> for {ty} {{\n        const API: ApiKey = ApiKey::{api};\n    }}\n\n"
            ),
            Role::Plain => Ok(()),
        };
    }
}

fn mentions(code: &str, name: &str) -> bool {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name)
}

fn parameter(name: &str, code: &str) -> String {
    if mentions(code, name) { name.into() } else { format!("_{name}") }
}

/// The enum of all defined APIs.
fn api_key_code(out: &mut String, definitions: &[Definition]) {
    let apis: Vec<(i16, &Definition)> = definitions.iter().filter_map(|d| Some((d.key?, d))).collect();
    out.push_str("/// An API that has a definition here.\n");
    out.push_str(
        "#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]\n#[repr(i16)]\npub enum ApiKey {\n",
    );
    for (key, api) in &apis {
        docs(out, "    ", &api.doc);
        let _ = writeln!(out, "    {} = {key},", api.name);
    }
    out.push_str("}\n\nimpl ApiKey {\n    /// All of them, by key.\n    pub const ALL: &[ApiKey] = &[");
    apis.iter().for_each(|(_, api)| {
        let _ = write!(out, "ApiKey::{}, ", api.name);
    });
    out.push_str("];\n\n    /// The API of a key on the wire, if it is defined.\n");
    out.push_str("    pub const fn from_key(key: i16) -> Option<ApiKey> {\n        match key {\n");
    for (key, api) in &apis {
        let _ = writeln!(out, "            {key} => Some(ApiKey::{}),", api.name);
    }
    out.push_str("            _ => None,\n        }\n    }\n\n    /// Kafka's name for it.\n");
    out.push_str("    pub const fn name(self) -> &'static str {\n        match self {\n");
    for (_, api) in &apis {
        let _ = writeln!(out, "            ApiKey::{0} => \"{0}\",", api.name);
    }
    out.push_str("        }\n    }\n\n    /// First and last version that is defined.\n");
    out.push_str("    pub const fn defined_versions(self) -> (i16, i16) {\n        match self {\n");
    for (_, api) in &apis {
        let (first, last) = api.versions.clone().into_inner();
        let _ = writeln!(out, "            ApiKey::{} => ({first}, {last}),", api.name);
    }
    out.push_str(
        "        }\n    }\n\n    /// First version with compact lengths, tagged fields and the newer headers.\n",
    );
    out.push_str("    pub const fn flexible_from(self) -> Option<i16> {\n        match self {\n");
    for (_, api) in &apis {
        let _ = writeln!(out, "            ApiKey::{} => {:?},", api.name, api.flexible_from);
    }
    out.push_str("        }\n    }\n}\n");
}

//! Classes of requests: what numbers, limits and log lines are about. A path that nobody knows is one class, so that nobody
//! can make more of them.

use hyper::Method;

/// A class of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// A device wants a token.
    Authentication,
    /// A device asks for an update.
    Poll,
    /// A device says how far it is.
    Status,
    /// A device sends a log.
    Log,
    /// A device says what it is.
    Inventory,
    /// Anything else of a device.
    Device,
    /// A WebSocket of a device.
    Connect,
    /// An artifact is loaded.
    Download,
    /// An artifact is sent.
    Upload,
    /// Anything else of people.
    Management,
    /// A file of the page that people open.
    Page,
    /// Whether the server works.
    Health,
    /// Anything else.
    Other,
}

/// Every class.
pub(crate) const CLASSES: [Class; 13] = [
    Class::Authentication,
    Class::Poll,
    Class::Status,
    Class::Log,
    Class::Inventory,
    Class::Device,
    Class::Connect,
    Class::Download,
    Class::Upload,
    Class::Management,
    Class::Page,
    Class::Health,
    Class::Other,
];

/// Whose places a request takes: devices cannot take those of people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// The device API.
    Devices,
    /// Artifacts on their way to devices.
    Downloads,
    /// People.
    People,
    /// Nobody's: these are always answered.
    Free,
}

impl Class {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Class::Authentication => "authentication",
            Class::Poll => "poll",
            Class::Status => "status",
            Class::Log => "log",
            Class::Inventory => "inventory",
            Class::Device => "device",
            Class::Connect => "connect",
            Class::Download => "download",
            Class::Upload => "upload",
            Class::Management => "management",
            Class::Page => "page",
            Class::Health => "health",
            Class::Other => "other",
        }
    }

    /// Whose places it takes.
    pub(crate) fn share(self) -> Share {
        match self {
            Class::Authentication
            | Class::Poll
            | Class::Status
            | Class::Log
            | Class::Inventory
            | Class::Device
            | Class::Connect
            // Strangers, mostly.
            | Class::Other => Share::Devices,
            Class::Download => Share::Downloads,
            Class::Upload | Class::Management | Class::Page => Share::People,
            Class::Health => Share::Free,
        }
    }

    /// The class of a request.
    pub(crate) fn of(method: &Method, path: &str) -> Class {
        let path = path.strip_prefix('/').unwrap_or(path).trim_end_matches('/');
        let (first, rest) = path.split_once('/').unwrap_or((path, ""));
        match first {
            "" | "page" => return Class::Page,
            "health" => return Class::Health,
            "download" => return Class::Download,
            "upload" => return Class::Upload,
            "api" => {}
            _ => return Class::Other,
        }
        let (second, rest) = rest.split_once('/').unwrap_or((rest, ""));
        match second {
            "devices" => {}
            "management" => return Class::of_management(method, rest),
            "internal" if rest == "v1/health" => return Class::Health,
            _ => return Class::Other,
        }
        let (_version, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let (service, rest) = rest.split_once('/').unwrap_or((rest, ""));
        match service {
            "authentication" => Class::Authentication,
            "inventory" => Class::Inventory,
            "deviceconnect" => Class::Connect,
            "deployments" if rest == "device/deployments/next" => Class::Poll,
            "deployments" if rest.starts_with("download/") => Class::Download,
            "deployments" if rest.ends_with("/status") => Class::Status,
            "deployments" if rest.ends_with("/log") => Class::Log,
            _ => Class::Device,
        }
    }

    fn of_management(method: &Method, rest: &str) -> Class {
        let (_version, rest) = rest.split_once('/').unwrap_or((rest, ""));
        match rest {
            "deployments/artifacts" | "deployments/artifacts/generate" if *method == Method::POST => {
                Class::Upload
            }
            _ if rest.starts_with("deviceconnect/") && rest.ends_with("/connect") => Class::Connect,
            _ => Class::Management,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_has_one_class() {
        let devices = "/api/devices/v1";
        let management = "/api/management/v1";
        for (method, path, class) in [
            ("POST", format!("{devices}/authentication/auth_requests"), Class::Authentication),
            ("GET", format!("{devices}/deployments/device/deployments/next"), Class::Poll),
            ("POST", "/api/devices/v2/deployments/device/deployments/next/".to_owned(), Class::Poll),
            ("PUT", format!("{devices}/deployments/device/deployments/id/status"), Class::Status),
            ("PUT", format!("{devices}/deployments/device/deployments/id/log"), Class::Log),
            ("GET", format!("{devices}/deployments/download/configuration/a/b/c"), Class::Download),
            ("PATCH", format!("{devices}/inventory/device/attributes"), Class::Inventory),
            ("GET", format!("{devices}/deviceconfig/configuration"), Class::Device),
            ("GET", format!("{devices}/deviceconnect/connect"), Class::Connect),
            ("GET", "/download/a.mender".to_owned(), Class::Download),
            ("POST", format!("{management}/deployments/artifacts"), Class::Upload),
            ("POST", format!("{management}/deployments/artifacts/generate"), Class::Upload),
            ("PUT", "/upload/a".to_owned(), Class::Upload),
            ("GET", format!("{management}/deployments/artifacts"), Class::Management),
            ("GET", format!("{management}/deviceconnect/devices/a/connect"), Class::Connect),
            ("GET", "/api/management/v2/devauth/devices".to_owned(), Class::Management),
            ("GET", "/api/management".to_owned(), Class::Management),
            ("GET", "/health".to_owned(), Class::Health),
            ("GET", "/health/ready".to_owned(), Class::Health),
            ("GET", "/api/internal/v1/health".to_owned(), Class::Health),
            ("GET", "/api/internal/v1/other".to_owned(), Class::Other),
            ("GET", "/api".to_owned(), Class::Other),
            ("GET", "/".to_owned(), Class::Page),
            ("GET", "/page/lib/preact.js".to_owned(), Class::Page),
            ("GET", "/pages".to_owned(), Class::Other),
            ("GET", "*".to_owned(), Class::Other),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(Class::of(&method, &path), class, "{method} {path}");
        }
    }

    #[test]
    fn devices_cannot_take_the_places_of_people() {
        for class in CLASSES {
            let is_of_people =
                matches!(class, Class::Upload | Class::Management | Class::Page | Class::Health);
            assert_eq!(
                matches!(class.share(), Share::People | Share::Free),
                is_of_people,
                "{}",
                class.name()
            );
        }
    }
}

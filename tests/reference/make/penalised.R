# Penalised models by blme: ../penalised.json. Nelder_Mead alone finds the optimum of all of them.
source("common.R")
suppressPackageStartupMessages(library(blme))

nm <- lmerControl(optimizer = "Nelder_Mead", check.conv.grad = "ignore", check.conv.singular = "ignore",
                  optCtrl = list(FtolAbs = 1e-12, FtolRel = 1e-15, XtolRel = 1e-11, maxfun = 20000))
gnm <- glmerControl(optimizer = "Nelder_Mead", check.conv.grad = "ignore",
                    optCtrl = list(FtolAbs = 1e-12, FtolRel = 1e-15, XtolRel = 1e-11, maxfun = 20000))
estimates <- function(fit) list(theta = vec(getME(fit, "theta")), sigma = sigma(fit), beta = vec(fixef(fit)),
                                se = vec(sqrt(diag(as.matrix(vcov(fit))))), logLik = as.numeric(logLik(fit)))
slope <- Reaction ~ Days + (Days | Subject); one <- Reaction ~ Days + (1 | Subject)
s <- read_data("sleepstudy"); c1 <- read_data("cbpp")
herd <- cbind(incidence, size - incidence) ~ period + (1 | herd)
write_reference("penalised.json", list(
  versions = versions("blme", "lme4"),
  models = list(
    wishart = estimates(blmer(slope, s, control = nm)),
    wishart_scale = estimates(blmer(slope, s, cov.prior = wishart(df = 4, scale = diag(2, 2)), control = nm)),
    invwishart = estimates(blmer(slope, s, cov.prior = invwishart(df = 5, scale = diag(.5, 2)), control = nm)),
    gamma = estimates(blmer(one, s, cov.prior = gamma(shape = 2, rate = .1), control = nm)),
    gamma_absolute = estimates(blmer(one, s, cov.prior = gamma(shape = 2, rate = .1, common.scale = FALSE), control = nm)),
    invgamma = estimates(blmer(one, s, cov.prior = invgamma(shape = 2, scale = 3, posterior.scale = "var"), control = nm)),
    normal = estimates(blmer(one, s, REML = FALSE, cov.prior = NULL, fixef.prior = normal(sd = c(10, 2.5)), control = nm)),
    normal_reml = estimates(blmer(one, s, cov.prior = NULL, fixef.prior = normal(sd = c(10, 2.5)), control = nm)),
    normal_absolute = estimates(blmer(one, s, REML = FALSE, cov.prior = NULL, control = nm,
                                      fixef.prior = normal(sd = c(10, 2.5), common.scale = FALSE))),
    t = estimates(blmer(one, s, REML = FALSE, cov.prior = NULL, fixef.prior = t(df = 3, scale = c(10^2, 2.5^2)), control = nm)),
    residual = estimates(blmer(one, s, cov.prior = wishart, resid.prior = gamma(shape = 2, rate = .01), control = nm)),
    binomial_wishart = estimates(bglmer(herd, c1, binomial, control = gnm)),
    binomial_normal = estimates(bglmer(herd, c1, binomial, fixef.prior = normal(sd = c(2, 1)), control = gnm)),
    binomial_t = estimates(bglmer(herd, c1, binomial, cov.prior = gamma(shape = 2.5, rate = .5),
                                  fixef.prior = t(df = 3, scale = c(4, 1)), control = gnm)))))
